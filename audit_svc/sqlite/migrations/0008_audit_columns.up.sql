-- What rows say beyond the required columns. An outcome is null where the producer gave none.
ALTER TABLE tool_call_log ADD COLUMN outcome TEXT;
ALTER TABLE tool_call_log ADD COLUMN model TEXT NOT NULL DEFAULT '';
ALTER TABLE tool_call_log ADD COLUMN tool_call_id TEXT NOT NULL DEFAULT '';
ALTER TABLE tool_call_log ADD COLUMN turn_id TEXT NOT NULL DEFAULT '';
ALTER TABLE tool_call_log ADD COLUMN redaction_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tool_call_log ADD COLUMN times_observed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tool_call_log ADD COLUMN shadow INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tool_call_log ADD COLUMN trace_id TEXT NOT NULL DEFAULT '';
ALTER TABLE cost_log ADD COLUMN context_exceeded INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cost_log ADD COLUMN shadow INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cost_log ADD COLUMN trace_id TEXT NOT NULL DEFAULT '';
-- Who may record the session's later states: the name of the caller that recorded its first; empty where callers have no names.
ALTER TABLE sessions ADD COLUMN recorded_by TEXT NOT NULL DEFAULT '';

-- The orders that listings walk. Most calls succeed: an index on their outcome would be as long as the table.
CREATE INDEX idx_tool_call_log_created ON tool_call_log (created_at);
CREATE INDEX idx_tool_call_log_failed ON tool_call_log (created_at) WHERE error IS NOT NULL;
CREATE INDEX idx_tool_call_log_model ON tool_call_log (model, created_at);
CREATE INDEX idx_tool_call_log_unusual ON tool_call_log (outcome, created_at) WHERE outcome <> 'succeeded';
CREATE INDEX idx_cost_log_created ON cost_log (created_at);
CREATE INDEX idx_sessions_model ON sessions (model, created_at);
CREATE INDEX idx_sessions_status ON sessions (status, created_at);
