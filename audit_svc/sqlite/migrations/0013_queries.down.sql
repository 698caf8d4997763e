DROP TABLE query_log;
DROP INDEX idx_sessions_status;
DROP INDEX idx_sessions_model;
DROP INDEX idx_tool_call_log_unusual;
DROP INDEX idx_tool_call_log_model;
