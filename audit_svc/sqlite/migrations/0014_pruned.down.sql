DROP INDEX idx_cost_log_created;
DROP TABLE pruned;
