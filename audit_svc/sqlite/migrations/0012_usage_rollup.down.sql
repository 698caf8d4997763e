DROP TABLE request_usage_daily;
DROP TABLE request_usage_hourly;
DROP TABLE tool_call_usage_daily;
DROP TABLE tool_call_usage_hourly;
