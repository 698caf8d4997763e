ALTER TABLE sessions DROP COLUMN recorded_by;
