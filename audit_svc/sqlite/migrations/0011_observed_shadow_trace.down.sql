ALTER TABLE cost_log DROP COLUMN trace_id;
ALTER TABLE cost_log DROP COLUMN shadow;
ALTER TABLE cost_log DROP COLUMN context_exceeded;
ALTER TABLE tool_call_log DROP COLUMN trace_id;
ALTER TABLE tool_call_log DROP COLUMN shadow;
ALTER TABLE tool_call_log DROP COLUMN times_observed;
