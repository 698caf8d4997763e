DROP TABLE session_usage_summed;
DROP TABLE session_usage;
DROP TABLE request_usage_32d;
DROP TABLE request_usage_daily;
DROP TABLE request_usage_hourly;
DROP TABLE tool_call_usage_32d;
DROP TABLE tool_call_usage_daily;
DROP TABLE tool_call_usage_hourly;
