ALTER TABLE tool_call_log DROP COLUMN redaction_version;
ALTER TABLE tool_call_log DROP COLUMN turn_id;
ALTER TABLE tool_call_log DROP COLUMN tool_call_id;
ALTER TABLE tool_call_log DROP COLUMN model;
ALTER TABLE tool_call_log DROP COLUMN outcome;
