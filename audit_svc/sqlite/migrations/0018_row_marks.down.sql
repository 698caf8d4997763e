ALTER TABLE cost_log DROP COLUMN cost_reported;
ALTER TABLE tool_call_log DROP COLUMN unconfined;
