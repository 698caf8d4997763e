-- What the ledger knows of its producers, of its readers and of what it no longer has.
CREATE TABLE producers (
    id               TEXT PRIMARY KEY NOT NULL,
    highest_sequence INTEGER NOT NULL,
    first_seen_at    INTEGER NOT NULL,
    last_seen_at     INTEGER NOT NULL
) STRICT;

-- Ranges of a producer's sequence, both ends included, that no batch has covered.
CREATE TABLE producer_gaps (
    producer_id    TEXT NOT NULL,
    first_sequence INTEGER NOT NULL,
    last_sequence  INTEGER NOT NULL,
    PRIMARY KEY (producer_id, first_sequence)
) STRICT, WITHOUT ROWID;

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

-- What was pruned, one row for each prune. finished_at is null until all of it is gone; what began before the highest
-- pruned_before is refused from the moment that its row is there.
CREATE TABLE pruned (
    id             INTEGER PRIMARY KEY,
    pruned_before  INTEGER NOT NULL,
    earliest       INTEGER,
    tool_calls     INTEGER NOT NULL,
    errors         INTEGER NOT NULL,
    model_requests INTEGER NOT NULL,
    input_tokens   INTEGER NOT NULL,
    output_tokens  INTEGER NOT NULL,
    cost_micros    INTEGER NOT NULL,
    sessions       INTEGER NOT NULL,
    pruned_by      TEXT NOT NULL,
    started_at     INTEGER NOT NULL,
    finished_at    INTEGER
) STRICT;
