-- Rows that were refused for good, by who sent them, why, and the minute in which they came: what a producer has in its
-- dead letters. first_sequence to last_sequence are the numbers of the batches that they were in; 0 without numbers.
CREATE TABLE refusals (
    recorded_by    TEXT NOT NULL,
    producer_id    TEXT NOT NULL,
    code           TEXT NOT NULL,
    minute         INTEGER NOT NULL,
    rows           INTEGER NOT NULL,
    first_sequence INTEGER NOT NULL,
    last_sequence  INTEGER NOT NULL,
    PRIMARY KEY (recorded_by, producer_id, code, minute)
) STRICT, WITHOUT ROWID;
CREATE INDEX idx_refusals_minute ON refusals (minute);
