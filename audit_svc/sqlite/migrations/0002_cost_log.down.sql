DROP TABLE cost_log;
