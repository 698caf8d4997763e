CREATE TABLE cost_log (
    id                  TEXT PRIMARY KEY NOT NULL,
    session_id          TEXT NOT NULL,
    turn_id             TEXT NOT NULL,
    engine              TEXT NOT NULL,
    model               TEXT NOT NULL,
    requested_model     TEXT NOT NULL,
    input_tokens        INTEGER NOT NULL,
    output_tokens       INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    reasoning_tokens    INTEGER NOT NULL,
    cost_micros         INTEGER,
    duration_ms         INTEGER NOT NULL,
    error               TEXT,
    created_at          INTEGER NOT NULL,
    usage_incomplete    INTEGER NOT NULL
) STRICT;

CREATE INDEX idx_cost_log_session ON cost_log (session_id, created_at);
