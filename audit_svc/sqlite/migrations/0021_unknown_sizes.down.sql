UPDATE tool_call_log SET result_bytes = 0 WHERE result_bytes IS NULL;
ALTER TABLE tool_call_log ALTER COLUMN result_bytes SET NOT NULL;
