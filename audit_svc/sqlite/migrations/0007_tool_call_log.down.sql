DROP TABLE tool_call_log;
