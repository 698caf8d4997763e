DROP INDEX idx_tool_call_log_failed;
DROP INDEX idx_tool_call_log_created;
