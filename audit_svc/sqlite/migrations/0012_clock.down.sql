DROP TABLE ledger_clock;
DROP INDEX idx_sessions_suspect;
DROP INDEX idx_cost_log_suspect;
DROP INDEX idx_tool_call_log_suspect;
ALTER TABLE sessions DROP COLUMN clock_suspect;
ALTER TABLE cost_log DROP COLUMN clock_suspect;
ALTER TABLE tool_call_log DROP COLUMN clock_suspect;
