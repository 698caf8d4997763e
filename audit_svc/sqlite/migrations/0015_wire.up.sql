-- The names of the wire: a session's sums are those of its model requests, and a call has the id of the model server beside its own.
ALTER TABLE tool_call_log RENAME COLUMN tool_call_id TO provider_call_id;
ALTER TABLE sessions RENAME COLUMN steps TO requests;
ALTER TABLE sessions RENAME COLUMN cost_micros TO known_cost_micros;
ALTER TABLE sessions RENAME COLUMN unpriced_steps TO unpriced_requests;
ALTER TABLE sessions ADD COLUMN cached_input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0;

-- Of sessions that are there already, what the requests say that are still there; shadows are not counted in a session.
UPDATE sessions SET (cached_input_tokens, reasoning_tokens) = (
    SELECT coalesce(sum(min(cached_input_tokens, 68719476735)), 0), coalesce(sum(min(reasoning_tokens, 68719476735)), 0)
    FROM cost_log WHERE session_id = sessions.id AND shadow = 0
);
