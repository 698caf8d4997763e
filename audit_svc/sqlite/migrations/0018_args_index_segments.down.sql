DROP TABLE args_index_zones;
DROP TABLE args_index_segments;
DROP TABLE args_index;

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
