CREATE TABLE sessions (
    id             TEXT PRIMARY KEY NOT NULL,
    revision       INTEGER NOT NULL,
    engine         TEXT NOT NULL,
    model          TEXT NOT NULL,
    status         TEXT,
    turns          INTEGER NOT NULL,
    steps          INTEGER NOT NULL,
    tool_calls     INTEGER NOT NULL,
    input_tokens   INTEGER NOT NULL,
    output_tokens  INTEGER NOT NULL,
    cost_micros    INTEGER NOT NULL,
    unpriced_steps INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL
) STRICT;

CREATE INDEX idx_sessions_created ON sessions (created_at);
CREATE INDEX idx_sessions_engine ON sessions (engine, created_at);

CREATE TABLE session_labels (
    session_id TEXT NOT NULL,
    key        TEXT NOT NULL,
    value      TEXT NOT NULL,
    PRIMARY KEY (session_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idx_session_labels_label ON session_labels (key, value);
