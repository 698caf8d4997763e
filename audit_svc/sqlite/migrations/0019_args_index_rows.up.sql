-- Which rows of tool_call_log have which three characters in a row in their args_summary; see store/text_index.py.
-- A zone is 16,384 row numbers. A segment is a run of zones whose entries lie together: first one zone, then 4, then 64.
-- Of a segment, an entry has the rows that have a trigram: their numbers from its first zone's first on, as a Roaring bitmap.
-- Not WITHOUT ROWID, whose inner pages would hold rows too, few in each, so that a look-up takes eight times as long.
-- What was there has blocks of rows, and is made again by the service when nothing else waits.
DROP TABLE args_index;

CREATE TABLE args_index (
    segment INTEGER NOT NULL,
    trigram TEXT NOT NULL,
    rows    BLOB NOT NULL,
    PRIMARY KEY (segment, trigram)
) STRICT;

DELETE FROM args_index_segments;
DELETE FROM args_index_zones;
