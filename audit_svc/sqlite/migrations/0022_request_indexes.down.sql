DROP INDEX idx_cost_log_failed;
DROP INDEX idx_cost_log_model;
