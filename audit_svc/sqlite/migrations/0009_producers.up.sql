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
