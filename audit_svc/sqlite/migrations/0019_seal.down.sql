DROP TABLE removal_log;
DROP TABLE gap_log;
DROP TABLE session_log;
ALTER TABLE control_log DROP COLUMN salt;
ALTER TABLE cost_log DROP COLUMN salt;
ALTER TABLE tool_call_log DROP COLUMN salt;
