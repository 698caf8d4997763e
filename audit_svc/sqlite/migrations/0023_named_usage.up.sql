-- What was used in each hour and each day of a name's value, kept in the writer's idle time with the sums of sessions, up to the same
-- positions. A name is principal, agent, source, mcp_server, label:KEY for a label of sessions, or '' for all rows, whose value is ''.
-- A session without a label adds nothing under the label's name. step is 3600000 or 86400000, begins_at when the period began.
CREATE TABLE named_usage (
    name                TEXT NOT NULL,
    step                INTEGER NOT NULL,
    begins_at           INTEGER NOT NULL,
    value               TEXT NOT NULL,
    calls               INTEGER NOT NULL,
    errors              INTEGER NOT NULL,
    nonzero_exits       INTEGER NOT NULL,
    http_errors         INTEGER NOT NULL,
    result_bytes        INTEGER NOT NULL,
    durations           BLOB NOT NULL,
    requests            INTEGER NOT NULL,
    request_errors      INTEGER NOT NULL,
    input_tokens        INTEGER NOT NULL,
    output_tokens       INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    reasoning_tokens    INTEGER NOT NULL,
    cost_micros         INTEGER NOT NULL,
    unpriced_requests   INTEGER NOT NULL,
    PRIMARY KEY (name, step, begins_at, value)
) STRICT, WITHOUT ROWID;

-- What the rows of a session say, each value once: name is principal, agent, tool_name or outcome. Kept as named_usage is.
CREATE TABLE session_traits (
    session_id  TEXT NOT NULL,
    recorded_by TEXT NOT NULL,
    name        TEXT NOT NULL,
    value       TEXT NOT NULL,
    PRIMARY KEY (session_id, recorded_by, name, value)
) STRICT, WITHOUT ROWID;
CREATE INDEX idx_session_traits_value ON session_traits (name, value);

-- Sessions whose labels have changed since some of their rows were summed: the labels of before, as JSON, and how far those rows
-- have been moved to the new ones. Rows that were summed later are summed by the new ones.
CREATE TABLE relabelled (
    id             INTEGER PRIMARY KEY,
    session_id     TEXT NOT NULL,
    recorded_by    TEXT NOT NULL,
    removed        TEXT NOT NULL,
    added          TEXT NOT NULL,
    kind           TEXT NOT NULL,
    until_position INTEGER NOT NULL,
    after_at       INTEGER NOT NULL DEFAULT 0,
    after_position INTEGER NOT NULL DEFAULT 0
) STRICT;

-- All sums are made anew, since they follow the rows together. Answers count the rows that are not summed yet.
DELETE FROM session_usage;
UPDATE session_usage_summed SET tool_calls = 0, model_requests = 0;
