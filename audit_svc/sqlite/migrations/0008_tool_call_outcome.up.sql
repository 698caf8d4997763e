-- An outcome is null where the producer gave none.
ALTER TABLE tool_call_log ADD COLUMN outcome TEXT;
ALTER TABLE tool_call_log ADD COLUMN model TEXT NOT NULL DEFAULT '';
ALTER TABLE tool_call_log ADD COLUMN tool_call_id TEXT NOT NULL DEFAULT '';
ALTER TABLE tool_call_log ADD COLUMN turn_id TEXT NOT NULL DEFAULT '';
ALTER TABLE tool_call_log ADD COLUMN redaction_version INTEGER NOT NULL DEFAULT 0;
