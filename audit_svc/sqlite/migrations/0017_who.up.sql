-- Who acted, for whom, by whose decision and by what way. Null where it is not set, and in all rows that are there already.
ALTER TABLE tool_call_log ADD COLUMN principal TEXT;
ALTER TABLE tool_call_log ADD COLUMN on_behalf_of TEXT;
ALTER TABLE tool_call_log ADD COLUMN agent TEXT;
ALTER TABLE tool_call_log ADD COLUMN agent_version TEXT;
ALTER TABLE tool_call_log ADD COLUMN source TEXT;
ALTER TABLE tool_call_log ADD COLUMN parent_turn_id TEXT;
ALTER TABLE tool_call_log ADD COLUMN mcp_server TEXT;
ALTER TABLE tool_call_log ADD COLUMN mcp_server_version TEXT;
ALTER TABLE tool_call_log ADD COLUMN args_digest_key TEXT;
ALTER TABLE tool_call_log ADD COLUMN args_digest TEXT;
ALTER TABLE tool_call_log ADD COLUMN verdict TEXT;
ALTER TABLE tool_call_log ADD COLUMN decision_source TEXT;
ALTER TABLE tool_call_log ADD COLUMN decided_by TEXT;
ALTER TABLE tool_call_log ADD COLUMN decided_at INTEGER;
ALTER TABLE tool_call_log ADD COLUMN waited_ms INTEGER;
ALTER TABLE tool_call_log ADD COLUMN rule TEXT;
ALTER TABLE tool_call_log ADD COLUMN policy_digest TEXT;
ALTER TABLE tool_call_log ADD COLUMN reason TEXT;

ALTER TABLE cost_log ADD COLUMN principal TEXT;
ALTER TABLE cost_log ADD COLUMN on_behalf_of TEXT;
ALTER TABLE cost_log ADD COLUMN agent TEXT;
ALTER TABLE cost_log ADD COLUMN agent_version TEXT;
ALTER TABLE cost_log ADD COLUMN source TEXT;
ALTER TABLE cost_log ADD COLUMN parent_turn_id TEXT;

-- What changed what agents may do: stops, and rules that came into force. They are never pruned.
CREATE TABLE control_log (
    position      INTEGER PRIMARY KEY,
    id            TEXT NOT NULL,
    kind          TEXT NOT NULL,
    principal     TEXT,
    scope         TEXT NOT NULL,
    policy_digest TEXT,
    reason        TEXT,
    created_at    INTEGER NOT NULL,
    stop_id       TEXT,
    recorded_by   TEXT NOT NULL DEFAULT '',
    recorded_at   INTEGER,
    UNIQUE (id, recorded_by)
) STRICT;
CREATE INDEX idx_control_log_created ON control_log (created_at);
