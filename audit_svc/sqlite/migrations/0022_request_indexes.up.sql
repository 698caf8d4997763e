-- Listings of model requests by engine and model, and of those that failed.
CREATE INDEX idx_cost_log_model ON cost_log (engine, model, created_at);
CREATE INDEX idx_cost_log_failed ON cost_log (created_at) WHERE error IS NOT NULL;
