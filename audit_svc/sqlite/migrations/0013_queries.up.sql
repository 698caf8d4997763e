-- One filter each of the listings. Most calls succeed: an index on their outcome would be as long as the table.
CREATE INDEX idx_tool_call_log_model ON tool_call_log (model, created_at);
CREATE INDEX idx_tool_call_log_unusual ON tool_call_log (outcome, created_at) WHERE outcome <> 'succeeded';
CREATE INDEX idx_sessions_model ON sessions (model, created_at);
CREATE INDEX idx_sessions_status ON sessions (status, created_at);

-- Who asked the ledger what.
CREATE TABLE query_log (
    id          INTEGER PRIMARY KEY NOT NULL,
    caller      TEXT NOT NULL,
    method      TEXT NOT NULL,
    filters     TEXT NOT NULL,
    rows        INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    status      TEXT NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX idx_query_log_created ON query_log (created_at);
