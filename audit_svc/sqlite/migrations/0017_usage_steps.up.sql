-- More steps beside the hour and the day, so that the answers of long ranges and of cut hours are short: 10 minutes, 6 hours, 8 and 64
-- days, counted from 1970 in UTC. Columns are those of the hour's tables, but durations has one byte before the counts, which says how many bytes
-- each of them has (1, 2 or 5).
--
-- 10 minutes, hours and days have every row. The others have what began before usage_folded.before: the writer adds an hour to them when it is over.
CREATE TABLE usage_folded (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    before INTEGER NOT NULL
) STRICT;
INSERT INTO usage_folded VALUES (1, unixepoch() / 3600 * 3600000);

CREATE TABLE tool_call_usage_10min (
    begins_at     INTEGER NOT NULL,
    engine        TEXT NOT NULL,
    model         TEXT NOT NULL,
    tool_name     TEXT NOT NULL,
    outcome       TEXT NOT NULL,
    calls         INTEGER NOT NULL,
    errors        INTEGER NOT NULL,
    nonzero_exits INTEGER NOT NULL,
    http_errors   INTEGER NOT NULL,
    result_bytes  INTEGER NOT NULL,
    duration_ms   INTEGER NOT NULL,
    durations     BLOB NOT NULL,
    PRIMARY KEY (begins_at, engine, model, tool_name, outcome)
) STRICT, WITHOUT ROWID;

CREATE TABLE tool_call_usage_6h (
    begins_at     INTEGER NOT NULL,
    engine        TEXT NOT NULL,
    model         TEXT NOT NULL,
    tool_name     TEXT NOT NULL,
    outcome       TEXT NOT NULL,
    calls         INTEGER NOT NULL,
    errors        INTEGER NOT NULL,
    nonzero_exits INTEGER NOT NULL,
    http_errors   INTEGER NOT NULL,
    result_bytes  INTEGER NOT NULL,
    duration_ms   INTEGER NOT NULL,
    durations     BLOB NOT NULL,
    PRIMARY KEY (begins_at, engine, model, tool_name, outcome)
) STRICT, WITHOUT ROWID;

CREATE TABLE tool_call_usage_8d (
    begins_at     INTEGER NOT NULL,
    engine        TEXT NOT NULL,
    model         TEXT NOT NULL,
    tool_name     TEXT NOT NULL,
    outcome       TEXT NOT NULL,
    calls         INTEGER NOT NULL,
    errors        INTEGER NOT NULL,
    nonzero_exits INTEGER NOT NULL,
    http_errors   INTEGER NOT NULL,
    result_bytes  INTEGER NOT NULL,
    duration_ms   INTEGER NOT NULL,
    durations     BLOB NOT NULL,
    PRIMARY KEY (begins_at, engine, model, tool_name, outcome)
) STRICT, WITHOUT ROWID;

CREATE TABLE tool_call_usage_64d (
    begins_at     INTEGER NOT NULL,
    engine        TEXT NOT NULL,
    model         TEXT NOT NULL,
    tool_name     TEXT NOT NULL,
    outcome       TEXT NOT NULL,
    calls         INTEGER NOT NULL,
    errors        INTEGER NOT NULL,
    nonzero_exits INTEGER NOT NULL,
    http_errors   INTEGER NOT NULL,
    result_bytes  INTEGER NOT NULL,
    duration_ms   INTEGER NOT NULL,
    durations     BLOB NOT NULL,
    PRIMARY KEY (begins_at, engine, model, tool_name, outcome)
) STRICT, WITHOUT ROWID;

CREATE TABLE request_usage_10min (
    begins_at           INTEGER NOT NULL,
    engine              TEXT NOT NULL,
    model               TEXT NOT NULL,
    requests            INTEGER NOT NULL,
    errors              INTEGER NOT NULL,
    input_tokens        INTEGER NOT NULL,
    output_tokens       INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    reasoning_tokens    INTEGER NOT NULL,
    cost_micros         INTEGER NOT NULL,
    unpriced_requests   INTEGER NOT NULL,
    PRIMARY KEY (begins_at, engine, model)
) STRICT, WITHOUT ROWID;

CREATE TABLE request_usage_6h (
    begins_at           INTEGER NOT NULL,
    engine              TEXT NOT NULL,
    model               TEXT NOT NULL,
    requests            INTEGER NOT NULL,
    errors              INTEGER NOT NULL,
    input_tokens        INTEGER NOT NULL,
    output_tokens       INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    reasoning_tokens    INTEGER NOT NULL,
    cost_micros         INTEGER NOT NULL,
    unpriced_requests   INTEGER NOT NULL,
    PRIMARY KEY (begins_at, engine, model)
) STRICT, WITHOUT ROWID;

CREATE TABLE request_usage_8d (
    begins_at           INTEGER NOT NULL,
    engine              TEXT NOT NULL,
    model               TEXT NOT NULL,
    requests            INTEGER NOT NULL,
    errors              INTEGER NOT NULL,
    input_tokens        INTEGER NOT NULL,
    output_tokens       INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    reasoning_tokens    INTEGER NOT NULL,
    cost_micros         INTEGER NOT NULL,
    unpriced_requests   INTEGER NOT NULL,
    PRIMARY KEY (begins_at, engine, model)
) STRICT, WITHOUT ROWID;

CREATE TABLE request_usage_64d (
    begins_at           INTEGER NOT NULL,
    engine              TEXT NOT NULL,
    model               TEXT NOT NULL,
    requests            INTEGER NOT NULL,
    errors              INTEGER NOT NULL,
    input_tokens        INTEGER NOT NULL,
    output_tokens       INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    reasoning_tokens    INTEGER NOT NULL,
    cost_micros         INTEGER NOT NULL,
    unpriced_requests   INTEGER NOT NULL,
    PRIMARY KEY (begins_at, engine, model)
) STRICT, WITHOUT ROWID;

-- The rows that are there already.
CREATE TEMP TABLE usage_counted_10min AS
SELECT created_at - created_at % 600000 AS begins_at, engine, model, tool_name, coalesce(outcome, '') AS outcome,
    16 * bits + (took_ms >> bits) AS bucket, count(*) AS calls, count(error) AS errors,
    count(nullif(exit_code, 0)) AS nonzero_exits, count(*) FILTER (WHERE http_status >= 400) AS http_errors,
    sum(min(result_bytes, 68719476735)) AS result_bytes, sum(took_ms) AS duration_ms
FROM (
    SELECT *, (took_ms >= 32) + (took_ms >= 64) + (took_ms >= 128) + (took_ms >= 256) + (took_ms >= 512) + (took_ms >= 1024)
        + (took_ms >= 2048) + (took_ms >= 4096) + (took_ms >= 8192) + (took_ms >= 16384) + (took_ms >= 32768) + (took_ms >= 65536)
        + (took_ms >= 131072) + (took_ms >= 262144) + (took_ms >= 524288) + (took_ms >= 1048576) + (took_ms >= 2097152) + (took_ms >= 4194304)
        + (took_ms >= 8388608) + (took_ms >= 16777216) + (took_ms >= 33554432) + (took_ms >= 67108864) + (took_ms >= 134217728) + (took_ms >= 268435456)
        + (took_ms >= 536870912) + (took_ms >= 1073741824) + (took_ms >= 2147483648) + (took_ms >= 4294967296) + (took_ms >= 8589934592) + (took_ms >= 17179869184)
        + (took_ms >= 34359738368) AS bits
    FROM (SELECT *, min(duration_ms, 68719476735) AS took_ms FROM main.tool_call_log)
)
GROUP BY 1, 2, 3, 4, 5, 6;

INSERT INTO main.tool_call_usage_10min
SELECT begins_at, engine, model, tool_name, outcome, sum(calls), sum(errors), sum(nonzero_exits), sum(http_errors),
    sum(result_bytes), sum(duration_ms), unhex(format('%02x', width) || group_concat(lanes, '' ORDER BY bucket DESC))
FROM (
    SELECT *, format('%0*x', 2 * width, calls) || hex(zeroblob(width * (bucket - 1 - lag(bucket, 1, -1) OVER (
        PARTITION BY begins_at, engine, model, tool_name, outcome ORDER BY bucket
    )))) AS lanes
    FROM (SELECT *, CASE
        WHEN max(calls) OVER (PARTITION BY begins_at, engine, model, tool_name, outcome) < 256 THEN 1
        WHEN max(calls) OVER (PARTITION BY begins_at, engine, model, tool_name, outcome) < 65536 THEN 2
        ELSE 5 END AS width FROM temp.usage_counted_10min)
)
GROUP BY begins_at, engine, model, tool_name, outcome;

INSERT INTO main.request_usage_10min
SELECT created_at - created_at % 600000, engine, model, count(*), count(error),
    sum(min(input_tokens, 68719476735)),
    sum(min(output_tokens, 68719476735)),
    sum(min(cached_input_tokens, 68719476735)),
    sum(min(reasoning_tokens, 68719476735)),
    coalesce(sum(min(cost_micros, 68719476735)), 0), count(*) - count(cost_micros)
FROM main.cost_log
GROUP BY 1, 2, 3;

CREATE TEMP TABLE usage_counted_hourly AS
SELECT begins_at - begins_at % 3600000 AS begins_at, engine, model, tool_name, outcome, bucket, sum(calls) AS calls,
    sum(errors) AS errors, sum(nonzero_exits) AS nonzero_exits, sum(http_errors) AS http_errors,
    sum(result_bytes) AS result_bytes, sum(duration_ms) AS duration_ms
FROM temp.usage_counted_10min
GROUP BY 1, 2, 3, 4, 5, 6;

CREATE TEMP TABLE usage_counted_6h AS
SELECT begins_at - begins_at % 21600000 AS begins_at, engine, model, tool_name, outcome, bucket, sum(calls) AS calls,
    sum(errors) AS errors, sum(nonzero_exits) AS nonzero_exits, sum(http_errors) AS http_errors,
    sum(result_bytes) AS result_bytes, sum(duration_ms) AS duration_ms
FROM temp.usage_counted_hourly
WHERE begins_at < (SELECT before FROM main.usage_folded)
GROUP BY 1, 2, 3, 4, 5, 6;

INSERT INTO main.tool_call_usage_6h
SELECT begins_at, engine, model, tool_name, outcome, sum(calls), sum(errors), sum(nonzero_exits), sum(http_errors),
    sum(result_bytes), sum(duration_ms), unhex(format('%02x', width) || group_concat(lanes, '' ORDER BY bucket DESC))
FROM (
    SELECT *, format('%0*x', 2 * width, calls) || hex(zeroblob(width * (bucket - 1 - lag(bucket, 1, -1) OVER (
        PARTITION BY begins_at, engine, model, tool_name, outcome ORDER BY bucket
    )))) AS lanes
    FROM (SELECT *, CASE
        WHEN max(calls) OVER (PARTITION BY begins_at, engine, model, tool_name, outcome) < 256 THEN 1
        WHEN max(calls) OVER (PARTITION BY begins_at, engine, model, tool_name, outcome) < 65536 THEN 2
        ELSE 5 END AS width FROM temp.usage_counted_6h)
)
GROUP BY begins_at, engine, model, tool_name, outcome;

INSERT INTO main.request_usage_6h
SELECT created_at - created_at % 21600000, engine, model, count(*), count(error),
    sum(min(input_tokens, 68719476735)),
    sum(min(output_tokens, 68719476735)),
    sum(min(cached_input_tokens, 68719476735)),
    sum(min(reasoning_tokens, 68719476735)),
    coalesce(sum(min(cost_micros, 68719476735)), 0), count(*) - count(cost_micros)
FROM main.cost_log
WHERE created_at < (SELECT before FROM main.usage_folded)
GROUP BY 1, 2, 3;

CREATE TEMP TABLE usage_counted_8d AS
SELECT begins_at - begins_at % 691200000 AS begins_at, engine, model, tool_name, outcome, bucket, sum(calls) AS calls,
    sum(errors) AS errors, sum(nonzero_exits) AS nonzero_exits, sum(http_errors) AS http_errors,
    sum(result_bytes) AS result_bytes, sum(duration_ms) AS duration_ms
FROM temp.usage_counted_6h
GROUP BY 1, 2, 3, 4, 5, 6;

INSERT INTO main.tool_call_usage_8d
SELECT begins_at, engine, model, tool_name, outcome, sum(calls), sum(errors), sum(nonzero_exits), sum(http_errors),
    sum(result_bytes), sum(duration_ms), unhex(format('%02x', width) || group_concat(lanes, '' ORDER BY bucket DESC))
FROM (
    SELECT *, format('%0*x', 2 * width, calls) || hex(zeroblob(width * (bucket - 1 - lag(bucket, 1, -1) OVER (
        PARTITION BY begins_at, engine, model, tool_name, outcome ORDER BY bucket
    )))) AS lanes
    FROM (SELECT *, CASE
        WHEN max(calls) OVER (PARTITION BY begins_at, engine, model, tool_name, outcome) < 256 THEN 1
        WHEN max(calls) OVER (PARTITION BY begins_at, engine, model, tool_name, outcome) < 65536 THEN 2
        ELSE 5 END AS width FROM temp.usage_counted_8d)
)
GROUP BY begins_at, engine, model, tool_name, outcome;

INSERT INTO main.request_usage_8d
SELECT created_at - created_at % 691200000, engine, model, count(*), count(error),
    sum(min(input_tokens, 68719476735)),
    sum(min(output_tokens, 68719476735)),
    sum(min(cached_input_tokens, 68719476735)),
    sum(min(reasoning_tokens, 68719476735)),
    coalesce(sum(min(cost_micros, 68719476735)), 0), count(*) - count(cost_micros)
FROM main.cost_log
WHERE created_at < (SELECT before FROM main.usage_folded)
GROUP BY 1, 2, 3;

CREATE TEMP TABLE usage_counted_64d AS
SELECT begins_at - begins_at % 5529600000 AS begins_at, engine, model, tool_name, outcome, bucket, sum(calls) AS calls,
    sum(errors) AS errors, sum(nonzero_exits) AS nonzero_exits, sum(http_errors) AS http_errors,
    sum(result_bytes) AS result_bytes, sum(duration_ms) AS duration_ms
FROM temp.usage_counted_8d
GROUP BY 1, 2, 3, 4, 5, 6;

INSERT INTO main.tool_call_usage_64d
SELECT begins_at, engine, model, tool_name, outcome, sum(calls), sum(errors), sum(nonzero_exits), sum(http_errors),
    sum(result_bytes), sum(duration_ms), unhex(format('%02x', width) || group_concat(lanes, '' ORDER BY bucket DESC))
FROM (
    SELECT *, format('%0*x', 2 * width, calls) || hex(zeroblob(width * (bucket - 1 - lag(bucket, 1, -1) OVER (
        PARTITION BY begins_at, engine, model, tool_name, outcome ORDER BY bucket
    )))) AS lanes
    FROM (SELECT *, CASE
        WHEN max(calls) OVER (PARTITION BY begins_at, engine, model, tool_name, outcome) < 256 THEN 1
        WHEN max(calls) OVER (PARTITION BY begins_at, engine, model, tool_name, outcome) < 65536 THEN 2
        ELSE 5 END AS width FROM temp.usage_counted_64d)
)
GROUP BY begins_at, engine, model, tool_name, outcome;

INSERT INTO main.request_usage_64d
SELECT created_at - created_at % 5529600000, engine, model, count(*), count(error),
    sum(min(input_tokens, 68719476735)),
    sum(min(output_tokens, 68719476735)),
    sum(min(cached_input_tokens, 68719476735)),
    sum(min(reasoning_tokens, 68719476735)),
    coalesce(sum(min(cost_micros, 68719476735)), 0), count(*) - count(cost_micros)
FROM main.cost_log
WHERE created_at < (SELECT before FROM main.usage_folded)
GROUP BY 1, 2, 3;

DROP TABLE temp.usage_counted_10min;

DROP TABLE temp.usage_counted_hourly;

DROP TABLE temp.usage_counted_6h;

DROP TABLE temp.usage_counted_8d;

DROP TABLE temp.usage_counted_64d;
