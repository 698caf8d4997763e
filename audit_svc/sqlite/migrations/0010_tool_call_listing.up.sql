-- The listing's order, for all rows and for those with an error: without them each page would sort the whole table.
CREATE INDEX idx_tool_call_log_created ON tool_call_log (created_at);
CREATE INDEX idx_tool_call_log_failed ON tool_call_log (created_at) WHERE error IS NOT NULL;
