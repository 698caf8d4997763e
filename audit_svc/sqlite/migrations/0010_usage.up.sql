-- What was used in each hour, day and 32 days (UTC, counted from 1970; begins_at is when the period began), kept beside the rows by the
-- writer. A null outcome is '' here. No row adds more than 2^36 - 1 to a sum, so that no sum can overflow. durations is a histogram: how
-- many bytes a count has (1, 2 or 5), then the big-endian counts of the buckets, the highest first; the bucket of d milliseconds is
-- 16 * s + (d >> s), where s is how many bits d has beyond five.
CREATE TABLE tool_call_usage_hourly (
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
) STRICT;

CREATE TABLE tool_call_usage_daily (
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
) STRICT;

CREATE TABLE tool_call_usage_32d (
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
) STRICT;

CREATE TABLE request_usage_hourly (
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

CREATE TABLE request_usage_daily (
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

CREATE TABLE request_usage_32d (
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

-- What each session used of each engine and model, and the times between which that began. It has the rows up to the row numbers of
-- session_usage_summed: the writer adds those that came after them when it has nothing else to do.
CREATE TABLE session_usage (
    session_id          TEXT NOT NULL,
    engine              TEXT NOT NULL,
    model               TEXT NOT NULL,
    earliest            INTEGER NOT NULL,
    latest              INTEGER NOT NULL,
    calls               INTEGER NOT NULL,
    errors              INTEGER NOT NULL,
    nonzero_exits       INTEGER NOT NULL,
    http_errors         INTEGER NOT NULL,
    result_bytes        INTEGER NOT NULL,
    durations           BLOB NOT NULL,
    requests            INTEGER NOT NULL,
    request_errors      INTEGER NOT NULL,
    input_tokens        INTEGER NOT NULL,
    output_tokens       INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    reasoning_tokens    INTEGER NOT NULL,
    cost_micros         INTEGER NOT NULL,
    unpriced_requests   INTEGER NOT NULL,
    PRIMARY KEY (session_id, engine, model)
) STRICT;

CREATE TABLE session_usage_summed (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    tool_calls     INTEGER NOT NULL,
    model_requests INTEGER NOT NULL
) STRICT;
INSERT INTO session_usage_summed VALUES (1, 0, 0);

-- The rows that are there already.
CREATE TEMP TABLE usage_counted_hourly AS
SELECT created_at - created_at % 3600000 AS begins_at, engine, model, tool_name, coalesce(outcome, '') AS outcome,
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

INSERT INTO main.tool_call_usage_hourly
SELECT begins_at, engine, model, tool_name, outcome, sum(calls), sum(errors), sum(nonzero_exits), sum(http_errors),
    sum(result_bytes), sum(duration_ms), unhex(format('%02x', width) || group_concat(lanes, '' ORDER BY bucket DESC))
FROM (
    SELECT *, format('%0*x', 2 * width, calls) || hex(zeroblob(width * (bucket - 1 - lag(bucket, 1, -1) OVER (
        PARTITION BY begins_at, engine, model, tool_name, outcome ORDER BY bucket
    )))) AS lanes
    FROM (
        SELECT *, CASE WHEN most < 256 THEN 1 WHEN most < 65536 THEN 2 ELSE 5 END AS width
        FROM (
            SELECT *, max(calls) OVER (PARTITION BY begins_at, engine, model, tool_name, outcome) AS most
            FROM temp.usage_counted_hourly
        )
    )
)
GROUP BY begins_at, engine, model, tool_name, outcome;

INSERT INTO main.request_usage_hourly
SELECT created_at - created_at % 3600000, engine, model, count(*), count(error),
    sum(min(input_tokens, 68719476735)),
    sum(min(output_tokens, 68719476735)),
    sum(min(cached_input_tokens, 68719476735)),
    sum(min(reasoning_tokens, 68719476735)),
    coalesce(sum(min(cost_micros, 68719476735)), 0), count(*) - count(cost_micros)
FROM main.cost_log
GROUP BY 1, 2, 3;

CREATE TEMP TABLE usage_counted_daily AS
SELECT begins_at - begins_at % 86400000 AS begins_at, engine, model, tool_name, outcome, bucket, sum(calls) AS calls,
    sum(errors) AS errors, sum(nonzero_exits) AS nonzero_exits, sum(http_errors) AS http_errors,
    sum(result_bytes) AS result_bytes, sum(duration_ms) AS duration_ms
FROM temp.usage_counted_hourly
GROUP BY 1, 2, 3, 4, 5, 6;

INSERT INTO main.tool_call_usage_daily
SELECT begins_at, engine, model, tool_name, outcome, sum(calls), sum(errors), sum(nonzero_exits), sum(http_errors),
    sum(result_bytes), sum(duration_ms), unhex(format('%02x', width) || group_concat(lanes, '' ORDER BY bucket DESC))
FROM (
    SELECT *, format('%0*x', 2 * width, calls) || hex(zeroblob(width * (bucket - 1 - lag(bucket, 1, -1) OVER (
        PARTITION BY begins_at, engine, model, tool_name, outcome ORDER BY bucket
    )))) AS lanes
    FROM (
        SELECT *, CASE WHEN most < 256 THEN 1 WHEN most < 65536 THEN 2 ELSE 5 END AS width
        FROM (
            SELECT *, max(calls) OVER (PARTITION BY begins_at, engine, model, tool_name, outcome) AS most
            FROM temp.usage_counted_daily
        )
    )
)
GROUP BY begins_at, engine, model, tool_name, outcome;

INSERT INTO main.request_usage_daily
SELECT created_at - created_at % 86400000, engine, model, count(*), count(error),
    sum(min(input_tokens, 68719476735)),
    sum(min(output_tokens, 68719476735)),
    sum(min(cached_input_tokens, 68719476735)),
    sum(min(reasoning_tokens, 68719476735)),
    coalesce(sum(min(cost_micros, 68719476735)), 0), count(*) - count(cost_micros)
FROM main.cost_log
GROUP BY 1, 2, 3;

CREATE TEMP TABLE usage_counted_32d AS
SELECT begins_at - begins_at % 2764800000 AS begins_at, engine, model, tool_name, outcome, bucket, sum(calls) AS calls,
    sum(errors) AS errors, sum(nonzero_exits) AS nonzero_exits, sum(http_errors) AS http_errors,
    sum(result_bytes) AS result_bytes, sum(duration_ms) AS duration_ms
FROM temp.usage_counted_daily
GROUP BY 1, 2, 3, 4, 5, 6;

INSERT INTO main.tool_call_usage_32d
SELECT begins_at, engine, model, tool_name, outcome, sum(calls), sum(errors), sum(nonzero_exits), sum(http_errors),
    sum(result_bytes), sum(duration_ms), unhex(format('%02x', width) || group_concat(lanes, '' ORDER BY bucket DESC))
FROM (
    SELECT *, format('%0*x', 2 * width, calls) || hex(zeroblob(width * (bucket - 1 - lag(bucket, 1, -1) OVER (
        PARTITION BY begins_at, engine, model, tool_name, outcome ORDER BY bucket
    )))) AS lanes
    FROM (
        SELECT *, CASE WHEN most < 256 THEN 1 WHEN most < 65536 THEN 2 ELSE 5 END AS width
        FROM (
            SELECT *, max(calls) OVER (PARTITION BY begins_at, engine, model, tool_name, outcome) AS most
            FROM temp.usage_counted_32d
        )
    )
)
GROUP BY begins_at, engine, model, tool_name, outcome;

INSERT INTO main.request_usage_32d
SELECT created_at - created_at % 2764800000, engine, model, count(*), count(error),
    sum(min(input_tokens, 68719476735)),
    sum(min(output_tokens, 68719476735)),
    sum(min(cached_input_tokens, 68719476735)),
    sum(min(reasoning_tokens, 68719476735)),
    coalesce(sum(min(cost_micros, 68719476735)), 0), count(*) - count(cost_micros)
FROM main.cost_log
GROUP BY 1, 2, 3;

DROP TABLE temp.usage_counted_hourly;

DROP TABLE temp.usage_counted_daily;

DROP TABLE temp.usage_counted_32d;
