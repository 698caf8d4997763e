-- What the seal needs: a salt for the texts of a row, so that a text can be removed and the rest of the row stays
-- provable; and logs, only added to, of what else changes in place. Rows that are there already have no salt.
ALTER TABLE tool_call_log ADD COLUMN salt BLOB;
ALTER TABLE cost_log ADD COLUMN salt BLOB;
ALTER TABLE control_log ADD COLUMN salt BLOB;

-- Each revision of a session, with its labels as a JSON object.
CREATE TABLE session_log (
    position            INTEGER PRIMARY KEY,
    id                  TEXT NOT NULL,
    revision            INTEGER NOT NULL,
    engine              TEXT NOT NULL,
    model               TEXT NOT NULL,
    status              TEXT,
    turns               INTEGER NOT NULL,
    tool_calls          INTEGER NOT NULL,
    requests            INTEGER NOT NULL,
    input_tokens        INTEGER NOT NULL,
    output_tokens       INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    reasoning_tokens    INTEGER NOT NULL,
    known_cost_micros   INTEGER NOT NULL,
    unpriced_requests   INTEGER NOT NULL,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    labels              TEXT NOT NULL,
    recorded_by         TEXT NOT NULL,
    recorded_at         INTEGER
) STRICT;
CREATE INDEX idx_session_log_session ON session_log (id, recorded_by);
INSERT INTO session_log
SELECT position, id, revision, engine, model, status, turns, tool_calls, requests, input_tokens, output_tokens,
    cached_input_tokens, reasoning_tokens, known_cost_micros, unpriced_requests, created_at, updated_at,
    (SELECT coalesce(json_group_object(key, value), '{}') FROM (SELECT key, value FROM session_labels
        WHERE session_id = sessions.id AND session_labels.recorded_by = sessions.recorded_by ORDER BY key)),
    recorded_by, recorded_at
FROM sessions ORDER BY position;

-- Numbers of a producer, both ends included, that were found not to have come, or came late.
CREATE TABLE gap_log (
    position       INTEGER PRIMARY KEY,
    change         TEXT NOT NULL CHECK (change IN ('opened', 'closed')),
    producer_id    TEXT NOT NULL,
    first_sequence INTEGER NOT NULL,
    last_sequence  INTEGER NOT NULL,
    recorded_by    TEXT NOT NULL,
    recorded_at    INTEGER
) STRICT;
INSERT INTO gap_log (change, producer_id, first_sequence, last_sequence, recorded_by)
SELECT 'opened', producer_id, first_sequence, last_sequence, recorded_by FROM producer_gaps
ORDER BY producer_id, recorded_by, first_sequence;

-- What a prune removed: positions of one kind of row, both ends included.
CREATE TABLE removal_log (
    position       INTEGER PRIMARY KEY,
    removed_kind   TEXT NOT NULL,
    first_position INTEGER NOT NULL,
    last_position  INTEGER NOT NULL,
    pruned_before  INTEGER NOT NULL,
    pruned_by      TEXT NOT NULL,
    recorded_at    INTEGER NOT NULL
) STRICT;
