-- What an erased row has in place of its texts: their hashes in its leaf of the seal, by column, as a JSON object. The
-- texts themselves are "[erased]" then, and the salt is null.
ALTER TABLE tool_call_log ADD COLUMN erased TEXT;
ALTER TABLE cost_log ADD COLUMN erased TEXT;
ALTER TABLE control_log ADD COLUMN erased TEXT;
CREATE INDEX idx_tool_call_log_erased ON tool_call_log (position) WHERE erased IS NOT NULL;
CREATE INDEX idx_cost_log_erased ON cost_log (position) WHERE erased IS NOT NULL;
CREATE INDEX idx_control_log_erased ON control_log (position) WHERE erased IS NOT NULL;

-- Whose texts were erased: positions of one kind of row, both ends included, by whom and why.
CREATE TABLE erasure_log (
    position       INTEGER PRIMARY KEY,
    erased_kind    TEXT NOT NULL,
    first_position INTEGER NOT NULL,
    last_position  INTEGER NOT NULL,
    erased_by      TEXT NOT NULL,
    reason         TEXT NOT NULL,
    recorded_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX idx_erasure_log_rows ON erasure_log (erased_kind, first_position);

-- Legal holds: what was placed and lifted, by whom and why. filter says what is held, as JSON.
CREATE TABLE hold_log (
    position    INTEGER PRIMARY KEY,
    act         TEXT NOT NULL CHECK (act IN ('placed', 'lifted')),
    name        TEXT NOT NULL,
    filter      TEXT NOT NULL,
    acted_by    TEXT NOT NULL,
    reason      TEXT NOT NULL,
    recorded_at INTEGER NOT NULL
) STRICT;

-- How far erasing is: the index of texts has nothing left of what was erased once it is merged; and for their age texts
-- are erased of rows that began before a time, of rows up to these positions.
CREATE TABLE erasing (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    is_merged      INTEGER NOT NULL,
    erased_before  INTEGER NOT NULL,
    tool_calls     INTEGER NOT NULL,
    model_requests INTEGER NOT NULL,
    controls       INTEGER NOT NULL
) STRICT;
INSERT INTO erasing VALUES (1, 1, 0, 0, 0, 0);
