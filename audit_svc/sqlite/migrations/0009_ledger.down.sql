DROP TABLE pruned;
DROP TABLE query_log;
DROP TABLE producer_gaps;
DROP TABLE producers;
