-- What was used in each hour and each day of a name's value, kept in the writer's idle time with the sums of sessions, up to the same
-- positions. A name is principal, agent, source, mcp_server, label:KEY for a label of sessions, or '' for all rows, whose value is ''.
-- A session without a label adds nothing under the label's name. step is 3600000 or 86400000, begins_at when the period began.
CREATE TABLE named_usage (
    name                text COLLATE "C" NOT NULL,
    step                bigint NOT NULL,
    begins_at           bigint NOT NULL,
    value               text COLLATE "C" NOT NULL,
    calls               bigint NOT NULL,
    errors              bigint NOT NULL,
    nonzero_exits       bigint NOT NULL,
    http_errors         bigint NOT NULL,
    result_bytes        bigint NOT NULL,
    durations           bytea NOT NULL,
    requests            bigint NOT NULL,
    request_errors      bigint NOT NULL,
    input_tokens        bigint NOT NULL,
    output_tokens       bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    reasoning_tokens    bigint NOT NULL,
    cost_micros         bigint NOT NULL,
    unpriced_requests   bigint NOT NULL,
    PRIMARY KEY (name, step, begins_at, value)
) WITH (fillfactor = 70);

-- What the rows of a session say, each value once: name is principal, agent, tool_name or outcome. Kept as named_usage is.
CREATE TABLE session_traits (
    session_id  text COLLATE "C" NOT NULL,
    recorded_by text COLLATE "C" NOT NULL,
    name        text COLLATE "C" NOT NULL,
    value       text COLLATE "C" NOT NULL,
    PRIMARY KEY (session_id, recorded_by, name, value)
) WITH (fillfactor = 70);
CREATE INDEX idx_session_traits_value ON session_traits (name, value);

-- Sessions whose labels have changed since some of their rows were summed: the labels of before, as JSON, and how far those rows
-- have been moved to the new ones. Rows that were summed later are summed by the new ones.
CREATE TABLE relabelled (
    id             bigint PRIMARY KEY,
    session_id     text COLLATE "C" NOT NULL,
    recorded_by    text COLLATE "C" NOT NULL,
    removed        text COLLATE "C" NOT NULL,
    added          text COLLATE "C" NOT NULL,
    kind           text COLLATE "C" NOT NULL,
    until_position bigint NOT NULL,
    after_at       bigint NOT NULL DEFAULT 0,
    after_position bigint NOT NULL DEFAULT 0
);

-- All sums are made anew, since they follow the rows together. Answers count the rows that are not summed yet.
DELETE FROM session_usage;
UPDATE session_usage_summed SET tool_calls = 0, model_requests = 0;
