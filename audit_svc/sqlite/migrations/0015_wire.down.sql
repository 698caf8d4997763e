ALTER TABLE sessions DROP COLUMN reasoning_tokens;
ALTER TABLE sessions DROP COLUMN cached_input_tokens;
ALTER TABLE sessions RENAME COLUMN unpriced_requests TO unpriced_steps;
ALTER TABLE sessions RENAME COLUMN known_cost_micros TO cost_micros;
ALTER TABLE sessions RENAME COLUMN requests TO steps;
ALTER TABLE tool_call_log RENAME COLUMN provider_call_id TO tool_call_id;
