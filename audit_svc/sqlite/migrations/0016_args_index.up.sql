-- Which blocks of rows of tool_call_log have which three characters in a row in their args_summary; see store/text_index.py.
-- A zone is 16,384 row numbers, a block 16 of them. blocks are those of the zone that have the trigram, packed.
-- A zone is indexed once it has a row in args_index_zones, with the times between which its calls began.
CREATE TABLE args_index (
    zone    INTEGER NOT NULL,
    trigram TEXT NOT NULL,
    blocks  BLOB NOT NULL,
    PRIMARY KEY (zone, trigram)
) STRICT, WITHOUT ROWID;

CREATE TABLE args_index_zones (
    zone     INTEGER PRIMARY KEY NOT NULL,
    earliest INTEGER NOT NULL,
    latest   INTEGER NOT NULL
) STRICT;

CREATE INDEX idx_args_index_zones_latest ON args_index_zones (latest, earliest);
