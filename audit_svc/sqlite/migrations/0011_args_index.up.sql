-- Which rows have which three characters in a row in their args_summary; see audit_svc/sqlite/text_index.py. No text is kept here.
-- zone is a mark of the row's zone. What is written is merged by the writer, some pages at a time, and never on its own.
CREATE VIRTUAL TABLE args_index USING fts5 (
    args_summary, zone, content = '', detail = none, tokenize = 'trigram'
);
INSERT INTO args_index (args_index, rank) VALUES ('automerge', 0);
INSERT INTO args_index (args_index, rank) VALUES ('crisismerge', 1999);

-- The times between which the calls of a zone, 262,144 row numbers, began.
CREATE TABLE args_index_zones (
    zone     INTEGER PRIMARY KEY NOT NULL,
    earliest INTEGER NOT NULL,
    latest   INTEGER NOT NULL
) STRICT;
