-- Who may record the session's later states: the name of the caller that recorded its first; empty where callers have no names.
ALTER TABLE sessions ADD COLUMN recorded_by TEXT NOT NULL DEFAULT '';
