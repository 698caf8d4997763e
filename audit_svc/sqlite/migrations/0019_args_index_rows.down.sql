DROP TABLE args_index;

CREATE TABLE args_index (
    segment INTEGER NOT NULL,
    trigram TEXT NOT NULL,
    zone    INTEGER NOT NULL,
    blocks  BLOB NOT NULL,
    PRIMARY KEY (segment, trigram, zone)
) STRICT, WITHOUT ROWID;

DELETE FROM args_index_segments;
DELETE FROM args_index_zones;
