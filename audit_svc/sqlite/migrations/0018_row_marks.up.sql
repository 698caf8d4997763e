-- Whether the call ran a program without a jail. Null where it is not said, and in all rows that are there already.
ALTER TABLE tool_call_log ADD COLUMN unconfined INTEGER;
-- Whether the price is what the agent reported. Null as above.
ALTER TABLE cost_log ADD COLUMN cost_reported INTEGER;
