-- How many questions a row stands for: those that a caller asked again within a minute are one row.
ALTER TABLE query_log ADD COLUMN times INTEGER NOT NULL DEFAULT 1;
