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

CREATE INDEX idx_cost_log_created ON cost_log (created_at);
