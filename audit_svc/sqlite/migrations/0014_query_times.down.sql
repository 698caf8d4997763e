ALTER TABLE query_log DROP COLUMN times;
