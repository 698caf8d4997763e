DROP TABLE producer_gaps;
DROP TABLE producers;
