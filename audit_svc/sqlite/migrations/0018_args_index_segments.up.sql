-- Which blocks of rows of tool_call_log have which three characters in a row in their args_summary; see store/text_index.py.
-- A zone is 16,384 row numbers, a block 8 of them. A segment is a run of zones whose entries lie together: first one zone, then 4, then 64.
-- An entry is of some zones of its segment, by the number of the first: blocks are those that have the trigram, packed.
-- What was there has larger blocks, and is made again by the service when nothing else waits.
DROP TABLE args_index_zones;
DROP TABLE args_index;

CREATE TABLE args_index (
    segment INTEGER NOT NULL,
    trigram TEXT NOT NULL,
    zone    INTEGER NOT NULL,
    blocks  BLOB NOT NULL,
    PRIMARY KEY (segment, trigram, zone)
) STRICT, WITHOUT ROWID;

-- Entries of a segment that is not here mean nothing. Between earliest and latest its calls began.
CREATE TABLE args_index_segments (
    segment  INTEGER PRIMARY KEY NOT NULL,
    zone     INTEGER NOT NULL,
    zones    INTEGER NOT NULL,
    earliest INTEGER NOT NULL,
    latest   INTEGER NOT NULL
) STRICT;

CREATE INDEX idx_args_index_segments_latest ON args_index_segments (latest, earliest);

-- A zone is indexed once it is here.
CREATE TABLE args_index_zones (
    zone     INTEGER PRIMARY KEY NOT NULL,
    earliest INTEGER NOT NULL,
    latest   INTEGER NOT NULL
) STRICT;
