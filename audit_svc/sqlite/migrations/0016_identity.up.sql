-- A row is known by (id, recorded_by): whoever uses another's id has a row of their own, and unmakes none. recorded_by is the
-- name of the caller, '' where callers have none, and recorded_at the ledger's time of the commit; rows that are there already
-- have neither. position is the order of commits. The tables are made anew, since their key changes.
ALTER TABLE tool_call_log RENAME TO tool_call_log_15;
CREATE TABLE tool_call_log (
    position          INTEGER PRIMARY KEY,
    id                TEXT NOT NULL,
    session_id        TEXT NOT NULL,
    engine            TEXT NOT NULL,
    tool_name         TEXT NOT NULL,
    args_summary      TEXT NOT NULL,
    duration_ms       INTEGER NOT NULL,
    exit_code         INTEGER,
    http_status       INTEGER,
    error             TEXT,
    result_truncated  INTEGER NOT NULL,
    result_bytes      INTEGER NOT NULL,
    created_at        INTEGER NOT NULL,
    outcome           TEXT,
    model             TEXT NOT NULL DEFAULT '',
    provider_call_id  TEXT NOT NULL DEFAULT '',
    turn_id           TEXT NOT NULL DEFAULT '',
    redaction_version INTEGER NOT NULL DEFAULT 0,
    times_observed    INTEGER NOT NULL DEFAULT 0,
    shadow            INTEGER NOT NULL DEFAULT 0,
    trace_id          TEXT NOT NULL DEFAULT '',
    clock_suspect     INTEGER,
    recorded_by       TEXT NOT NULL DEFAULT '',
    recorded_at       INTEGER,
    UNIQUE (id, recorded_by)
) STRICT;
INSERT INTO tool_call_log
SELECT rowid, id, session_id, engine, tool_name, args_summary, duration_ms, exit_code, http_status, error, result_truncated,
    result_bytes, created_at, outcome, model, provider_call_id, turn_id, redaction_version, times_observed, shadow, trace_id,
    clock_suspect, '', NULL
FROM tool_call_log_15 ORDER BY rowid;
DROP TABLE tool_call_log_15;
CREATE INDEX idx_tool_call_log_session ON tool_call_log (session_id, created_at);
CREATE INDEX idx_tool_call_log_tool ON tool_call_log (engine, tool_name, created_at);
CREATE INDEX idx_tool_call_log_error ON tool_call_log (error) WHERE error IS NOT NULL;
CREATE INDEX idx_tool_call_log_created ON tool_call_log (created_at);
CREATE INDEX idx_tool_call_log_failed ON tool_call_log (created_at) WHERE error IS NOT NULL;
CREATE INDEX idx_tool_call_log_model ON tool_call_log (model, created_at);
CREATE INDEX idx_tool_call_log_unusual ON tool_call_log (outcome, created_at) WHERE outcome <> 'succeeded';
CREATE INDEX idx_tool_call_log_suspect ON tool_call_log (created_at) WHERE clock_suspect IS NOT NULL;

ALTER TABLE cost_log RENAME TO cost_log_15;
CREATE TABLE cost_log (
    position            INTEGER PRIMARY KEY,
    id                  TEXT NOT NULL,
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
    usage_incomplete    INTEGER NOT NULL,
    context_exceeded    INTEGER NOT NULL DEFAULT 0,
    shadow              INTEGER NOT NULL DEFAULT 0,
    trace_id            TEXT NOT NULL DEFAULT '',
    clock_suspect       INTEGER,
    recorded_by         TEXT NOT NULL DEFAULT '',
    recorded_at         INTEGER,
    UNIQUE (id, recorded_by)
) STRICT;
INSERT INTO cost_log
SELECT rowid, id, session_id, turn_id, engine, model, requested_model, input_tokens, output_tokens, cached_input_tokens,
    reasoning_tokens, cost_micros, duration_ms, error, created_at, usage_incomplete, context_exceeded, shadow, trace_id,
    clock_suspect, '', NULL
FROM cost_log_15 ORDER BY rowid;
DROP TABLE cost_log_15;
CREATE INDEX idx_cost_log_session ON cost_log (session_id, created_at);
CREATE INDEX idx_cost_log_created ON cost_log (created_at);
CREATE INDEX idx_cost_log_suspect ON cost_log (created_at) WHERE clock_suspect IS NOT NULL;

-- A session of before belongs to nobody new, whoever recorded it: its rows cannot be told from others'.
ALTER TABLE sessions RENAME TO sessions_15;
CREATE TABLE sessions (
    position            INTEGER PRIMARY KEY,
    id                  TEXT NOT NULL,
    revision            INTEGER NOT NULL,
    engine              TEXT NOT NULL,
    model               TEXT NOT NULL,
    status              TEXT,
    turns               INTEGER NOT NULL,
    requests            INTEGER NOT NULL,
    tool_calls          INTEGER NOT NULL,
    input_tokens        INTEGER NOT NULL,
    output_tokens       INTEGER NOT NULL,
    known_cost_micros   INTEGER NOT NULL,
    unpriced_requests   INTEGER NOT NULL,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    clock_suspect       INTEGER,
    cached_input_tokens INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens    INTEGER NOT NULL DEFAULT 0,
    recorded_by         TEXT NOT NULL DEFAULT '',
    recorded_at         INTEGER,
    UNIQUE (id, recorded_by)
) STRICT;
INSERT INTO sessions
SELECT rowid, id, revision, engine, model, status, turns, requests, tool_calls, input_tokens, output_tokens, known_cost_micros,
    unpriced_requests, created_at, updated_at, clock_suspect, cached_input_tokens, reasoning_tokens, '', NULL
FROM sessions_15 ORDER BY rowid;
DROP TABLE sessions_15;
CREATE INDEX idx_sessions_created ON sessions (created_at);
CREATE INDEX idx_sessions_engine ON sessions (engine, created_at);
CREATE INDEX idx_sessions_model ON sessions (model, created_at);
CREATE INDEX idx_sessions_status ON sessions (status, created_at);
CREATE INDEX idx_sessions_suspect ON sessions (created_at) WHERE clock_suspect IS NOT NULL;

ALTER TABLE session_labels RENAME TO session_labels_15;
CREATE TABLE session_labels (
    session_id  TEXT NOT NULL,
    recorded_by TEXT NOT NULL,
    key         TEXT NOT NULL,
    value       TEXT NOT NULL,
    PRIMARY KEY (session_id, recorded_by, key)
) STRICT, WITHOUT ROWID;
INSERT INTO session_labels SELECT session_id, '', key, value FROM session_labels_15;
DROP TABLE session_labels_15;
CREATE INDEX idx_session_labels_label ON session_labels (key, value);

ALTER TABLE session_usage RENAME TO session_usage_15;
CREATE TABLE session_usage (
    session_id          TEXT NOT NULL,
    recorded_by         TEXT NOT NULL,
    engine              TEXT NOT NULL,
    model               TEXT NOT NULL,
    earliest            INTEGER NOT NULL,
    latest              INTEGER NOT NULL,
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
    PRIMARY KEY (session_id, recorded_by, engine, model)
) STRICT;
INSERT INTO session_usage
SELECT session_id, '', engine, model, earliest, latest, calls, errors, nonzero_exits, http_errors, result_bytes, durations,
    requests, request_errors, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, cost_micros, unpriced_requests
FROM session_usage_15 ORDER BY rowid;
DROP TABLE session_usage_15;

-- A producer's numbers are its caller's: another that uses them neither fills nor makes a gap in them.
ALTER TABLE producers RENAME TO producers_15;
CREATE TABLE producers (
    id               TEXT NOT NULL,
    recorded_by      TEXT NOT NULL,
    highest_sequence INTEGER NOT NULL,
    first_seen_at    INTEGER NOT NULL,
    last_seen_at     INTEGER NOT NULL,
    PRIMARY KEY (id, recorded_by)
) STRICT;
INSERT INTO producers SELECT id, '', highest_sequence, first_seen_at, last_seen_at FROM producers_15 ORDER BY rowid;
DROP TABLE producers_15;
ALTER TABLE producer_gaps RENAME TO producer_gaps_15;
CREATE TABLE producer_gaps (
    producer_id    TEXT NOT NULL,
    recorded_by    TEXT NOT NULL,
    first_sequence INTEGER NOT NULL,
    last_sequence  INTEGER NOT NULL,
    PRIMARY KEY (producer_id, recorded_by, first_sequence)
) STRICT, WITHOUT ROWID;
INSERT INTO producer_gaps SELECT producer_id, '', first_sequence, last_sequence FROM producer_gaps_15;
DROP TABLE producer_gaps_15;

-- Who has ever recorded a row. Only where there are two can an id be two rows.
CREATE TABLE recorders (
    recorded_by TEXT PRIMARY KEY NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO recorders SELECT '' WHERE EXISTS (SELECT 1 FROM tool_call_log) OR EXISTS (SELECT 1 FROM cost_log)
    OR EXISTS (SELECT 1 FROM sessions) OR EXISTS (SELECT 1 FROM producers);
