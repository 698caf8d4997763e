-- A size that nobody told is null. In rows that are there already it is 0, as theirs is that returned nothing.
ALTER TABLE tool_call_log ALTER COLUMN result_bytes DROP NOT NULL;
