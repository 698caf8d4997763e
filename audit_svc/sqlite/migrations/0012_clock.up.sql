-- When a row came by the ledger's clock, where that clock and the row's own time cannot both be right; null elsewhere.
ALTER TABLE tool_call_log ADD COLUMN clock_suspect INTEGER;
ALTER TABLE cost_log ADD COLUMN clock_suspect INTEGER;
ALTER TABLE sessions ADD COLUMN clock_suspect INTEGER;
CREATE INDEX idx_tool_call_log_suspect ON tool_call_log (created_at) WHERE clock_suspect IS NOT NULL;
CREATE INDEX idx_cost_log_suspect ON cost_log (created_at) WHERE clock_suspect IS NOT NULL;
CREATE INDEX idx_sessions_suspect ON sessions (created_at) WHERE clock_suspect IS NOT NULL;

-- The time that the ledger's clock showed when it was last believed.
CREATE TABLE ledger_clock (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    seen_at INTEGER NOT NULL
) STRICT;
INSERT INTO ledger_clock SELECT 1, seen_at FROM (
    SELECT max(seen_at) AS seen_at FROM (
        SELECT max(last_seen_at) AS seen_at FROM producers
        UNION ALL SELECT created_at FROM tool_call_log WHERE rowid = (SELECT max(rowid) FROM tool_call_log)
        UNION ALL SELECT created_at FROM cost_log WHERE rowid = (SELECT max(rowid) FROM cost_log)
    )
) WHERE seen_at IS NOT NULL;
