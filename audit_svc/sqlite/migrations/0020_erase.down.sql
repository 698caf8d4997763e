DROP TABLE erasing;
DROP TABLE hold_log;
DROP TABLE erasure_log;
DROP INDEX idx_control_log_erased;
DROP INDEX idx_cost_log_erased;
DROP INDEX idx_tool_call_log_erased;
ALTER TABLE control_log DROP COLUMN erased;
ALTER TABLE cost_log DROP COLUMN erased;
ALTER TABLE tool_call_log DROP COLUMN erased;
