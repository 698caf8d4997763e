ALTER TABLE tool_call_log DROP COLUMN unconfined;
