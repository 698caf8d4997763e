CREATE TABLE tool_call_log (
    id               TEXT PRIMARY KEY NOT NULL,
    session_id       TEXT NOT NULL,
    engine           TEXT NOT NULL,
    tool_name        TEXT NOT NULL,
    args_summary     TEXT NOT NULL,
    duration_ms      INTEGER NOT NULL,
    exit_code        INTEGER,
    http_status      INTEGER,
    error            TEXT,
    result_truncated INTEGER NOT NULL,
    result_bytes     INTEGER NOT NULL,
    created_at       INTEGER NOT NULL
) STRICT;

CREATE INDEX idx_tool_call_log_session ON tool_call_log (session_id, created_at);
CREATE INDEX idx_tool_call_log_tool ON tool_call_log (engine, tool_name, created_at);
CREATE INDEX idx_tool_call_log_error ON tool_call_log (error) WHERE error IS NOT NULL;
