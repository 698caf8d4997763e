-- The whole schema, as SQLite's migrations make it up to 0022. Texts compare by their bytes, as SQLite's do, whatever
-- the database's collation. Numbers that come first in a row of a log leave no space between them.

-- What every transaction of the writer updates first: so they are one after the other, and a position is taken in the
-- order of commits, also while a writer that was replaced still thinks that it is one.
CREATE TABLE ledger_writer (
    id      smallint PRIMARY KEY CHECK (id = 1),
    epoch   bigint NOT NULL,
    commits bigint NOT NULL
);
INSERT INTO ledger_writer VALUES (1, 0, 0);

-- Which replica writes, and that it lives: a row of its own, since that one is held while a transaction runs.
CREATE TABLE ledger_lease (
    id         smallint PRIMARY KEY CHECK (id = 1),
    epoch      bigint NOT NULL,
    beats      bigint NOT NULL,
    holder     text COLLATE "C" NOT NULL,
    address    text COLLATE "C" NOT NULL,
    is_present boolean NOT NULL,
    page_key   bytea
);
INSERT INTO ledger_lease VALUES (1, 0, 0, '', '', false);

-- A glob of * and ? as a regular expression.
CREATE FUNCTION glob_regex(glob text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT '^' || replace(replace(regexp_replace(glob, '([][\\(){}.+^$|])', '\\\1', 'g'), '*', '.*'), '?', '.') || '$'
$$;

-- The next position of a log. Not a sequence, which leaves holes where a transaction is taken back.
CREATE FUNCTION next_position(log text, "column" text DEFAULT 'position') RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    free bigint;
BEGIN
    EXECUTE format('SELECT coalesce(max(%I), 0) + 1 FROM public.%I', "column", log) INTO free;
    RETURN free;
END
$$;

CREATE TABLE tool_call_log (
    position           bigint PRIMARY KEY,
    created_at         bigint NOT NULL,
    recorded_at        bigint,
    duration_ms        bigint NOT NULL,
    exit_code          bigint,
    http_status        bigint,
    result_bytes       bigint,
    redaction_version  bigint NOT NULL,
    clock_suspect      bigint,
    decided_at         bigint,
    waited_ms          bigint,
    result_truncated   smallint NOT NULL,
    times_observed     smallint NOT NULL,
    shadow             smallint NOT NULL,
    unconfined         smallint,
    id                 text COLLATE "C" NOT NULL,
    recorded_by        text COLLATE "C" NOT NULL,
    session_id         text COLLATE "C" NOT NULL,
    turn_id            text COLLATE "C" NOT NULL,
    engine             text COLLATE "C" NOT NULL,
    model              text COLLATE "C" NOT NULL,
    tool_name          text COLLATE "C" NOT NULL,
    args_summary       text COLLATE "C" NOT NULL,
    outcome            text COLLATE "C",
    error              text COLLATE "C",
    provider_call_id   text COLLATE "C" NOT NULL,
    trace_id           text COLLATE "C" NOT NULL,
    principal          text COLLATE "C",
    on_behalf_of       text COLLATE "C",
    agent              text COLLATE "C",
    agent_version      text COLLATE "C",
    source             text COLLATE "C",
    parent_turn_id     text COLLATE "C",
    mcp_server         text COLLATE "C",
    mcp_server_version text COLLATE "C",
    args_digest_key    text COLLATE "C",
    args_digest        text COLLATE "C",
    verdict            text COLLATE "C",
    decision_source    text COLLATE "C",
    decided_by         text COLLATE "C",
    rule               text COLLATE "C",
    policy_digest      text COLLATE "C",
    reason             text COLLATE "C",
    erased             text COLLATE "C",
    salt               bytea,
    UNIQUE (id, recorded_by)
);
CREATE INDEX idx_tool_call_log_created ON tool_call_log (created_at, position);
CREATE INDEX idx_tool_call_log_session ON tool_call_log (session_id, created_at, position);
CREATE INDEX idx_tool_call_log_model ON tool_call_log (model, created_at, position);
CREATE INDEX idx_tool_call_log_tool ON tool_call_log (engine, tool_name, created_at, position);
CREATE INDEX idx_tool_call_log_unusual ON tool_call_log (outcome, created_at, position) WHERE outcome <> 'succeeded';
CREATE INDEX idx_tool_call_log_failed ON tool_call_log (created_at, position) WHERE error IS NOT NULL;
CREATE INDEX idx_tool_call_log_error ON tool_call_log (error) WHERE error IS NOT NULL;
CREATE INDEX idx_tool_call_log_suspect ON tool_call_log (created_at, position) WHERE clock_suspect IS NOT NULL;
CREATE INDEX idx_tool_call_log_erased ON tool_call_log (position) WHERE erased IS NOT NULL;

CREATE TABLE cost_log (
    position            bigint PRIMARY KEY,
    created_at          bigint NOT NULL,
    recorded_at         bigint,
    input_tokens        bigint NOT NULL,
    output_tokens       bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    reasoning_tokens    bigint NOT NULL,
    cost_micros         bigint,
    duration_ms         bigint NOT NULL,
    clock_suspect       bigint,
    usage_incomplete    smallint NOT NULL,
    context_exceeded    smallint NOT NULL,
    shadow              smallint NOT NULL,
    cost_reported       smallint,
    id                  text COLLATE "C" NOT NULL,
    recorded_by         text COLLATE "C" NOT NULL,
    session_id          text COLLATE "C" NOT NULL,
    turn_id             text COLLATE "C" NOT NULL,
    engine              text COLLATE "C" NOT NULL,
    model               text COLLATE "C" NOT NULL,
    requested_model     text COLLATE "C" NOT NULL,
    error               text COLLATE "C",
    trace_id            text COLLATE "C" NOT NULL,
    principal           text COLLATE "C",
    on_behalf_of        text COLLATE "C",
    agent               text COLLATE "C",
    agent_version       text COLLATE "C",
    source              text COLLATE "C",
    parent_turn_id      text COLLATE "C",
    erased              text COLLATE "C",
    salt                bytea,
    UNIQUE (id, recorded_by)
);
CREATE INDEX idx_cost_log_created ON cost_log (created_at, position);
CREATE INDEX idx_cost_log_session ON cost_log (session_id, created_at, position);
CREATE INDEX idx_cost_log_model ON cost_log (engine, model, created_at, position);
CREATE INDEX idx_cost_log_failed ON cost_log (created_at, position) WHERE error IS NOT NULL;
CREATE INDEX idx_cost_log_suspect ON cost_log (created_at, position) WHERE clock_suspect IS NOT NULL;
CREATE INDEX idx_cost_log_erased ON cost_log (position) WHERE erased IS NOT NULL;

CREATE TABLE control_log (
    position      bigint PRIMARY KEY,
    created_at    bigint NOT NULL,
    recorded_at   bigint,
    id            text COLLATE "C" NOT NULL,
    recorded_by   text COLLATE "C" NOT NULL,
    kind          text COLLATE "C" NOT NULL,
    principal     text COLLATE "C",
    scope         text COLLATE "C" NOT NULL,
    policy_digest text COLLATE "C",
    reason        text COLLATE "C",
    stop_id       text COLLATE "C",
    erased        text COLLATE "C",
    salt          bytea,
    UNIQUE (id, recorded_by)
);
CREATE INDEX idx_control_log_created ON control_log (created_at, position);
CREATE INDEX idx_control_log_erased ON control_log (position) WHERE erased IS NOT NULL;

CREATE TABLE sessions (
    position            bigint PRIMARY KEY DEFAULT next_position('sessions'),
    revision            bigint NOT NULL,
    turns               bigint NOT NULL,
    requests            bigint NOT NULL,
    tool_calls          bigint NOT NULL,
    input_tokens        bigint NOT NULL,
    output_tokens       bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    reasoning_tokens    bigint NOT NULL,
    known_cost_micros   bigint NOT NULL,
    unpriced_requests   bigint NOT NULL,
    created_at          bigint NOT NULL,
    updated_at          bigint NOT NULL,
    clock_suspect       bigint,
    recorded_at         bigint,
    id                  text COLLATE "C" NOT NULL,
    recorded_by         text COLLATE "C" NOT NULL,
    engine              text COLLATE "C" NOT NULL,
    model               text COLLATE "C" NOT NULL,
    status              text COLLATE "C",
    UNIQUE (id, recorded_by)
);
CREATE INDEX idx_sessions_created ON sessions (created_at, position);
CREATE INDEX idx_sessions_engine ON sessions (engine, created_at, position);
CREATE INDEX idx_sessions_model ON sessions (model, created_at, position);
CREATE INDEX idx_sessions_status ON sessions (status, created_at, position);
CREATE INDEX idx_sessions_suspect ON sessions (created_at, position) WHERE clock_suspect IS NOT NULL;

CREATE TABLE session_labels (
    session_id  text COLLATE "C" NOT NULL,
    recorded_by text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    value       text COLLATE "C" NOT NULL,
    PRIMARY KEY (session_id, recorded_by, key)
);
CREATE INDEX idx_session_labels_label ON session_labels (key, value, session_id, recorded_by);

CREATE TABLE session_log (
    position            bigint PRIMARY KEY DEFAULT next_position('session_log'),
    revision            bigint NOT NULL,
    turns               bigint NOT NULL,
    tool_calls          bigint NOT NULL,
    requests            bigint NOT NULL,
    input_tokens        bigint NOT NULL,
    output_tokens       bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    reasoning_tokens    bigint NOT NULL,
    known_cost_micros   bigint NOT NULL,
    unpriced_requests   bigint NOT NULL,
    created_at          bigint NOT NULL,
    updated_at          bigint NOT NULL,
    recorded_at         bigint,
    id                  text COLLATE "C" NOT NULL,
    recorded_by         text COLLATE "C" NOT NULL,
    engine              text COLLATE "C" NOT NULL,
    model               text COLLATE "C" NOT NULL,
    status              text COLLATE "C",
    labels              text COLLATE "C" NOT NULL
);
CREATE INDEX idx_session_log_session ON session_log (id, recorded_by);

CREATE TABLE producers (
    id               text COLLATE "C" NOT NULL,
    recorded_by      text COLLATE "C" NOT NULL,
    highest_sequence bigint NOT NULL,
    first_seen_at    bigint NOT NULL,
    last_seen_at     bigint NOT NULL,
    PRIMARY KEY (id, recorded_by)
);

CREATE TABLE producer_gaps (
    producer_id    text COLLATE "C" NOT NULL,
    recorded_by    text COLLATE "C" NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence  bigint NOT NULL,
    PRIMARY KEY (producer_id, recorded_by, first_sequence)
);

CREATE TABLE gap_log (
    position       bigint PRIMARY KEY DEFAULT next_position('gap_log'),
    first_sequence bigint NOT NULL,
    last_sequence  bigint NOT NULL,
    recorded_at    bigint,
    change         text COLLATE "C" NOT NULL CHECK (change IN ('opened', 'closed')),
    producer_id    text COLLATE "C" NOT NULL,
    recorded_by    text COLLATE "C" NOT NULL
);

CREATE TABLE refusals (
    recorded_by    text COLLATE "C" NOT NULL,
    producer_id    text COLLATE "C" NOT NULL,
    code           text COLLATE "C" NOT NULL,
    minute         bigint NOT NULL,
    rows           bigint NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence  bigint NOT NULL,
    PRIMARY KEY (recorded_by, producer_id, code, minute)
);
CREATE INDEX idx_refusals_minute ON refusals (minute);

CREATE TABLE recorders (
    recorded_by text COLLATE "C" PRIMARY KEY
);

CREATE TABLE ledger_clock (
    id      smallint PRIMARY KEY CHECK (id = 1),
    seen_at bigint NOT NULL
);

CREATE TABLE query_log (
    id          bigint PRIMARY KEY DEFAULT next_position('query_log', 'id'),
    rows        bigint NOT NULL,
    duration_ms bigint NOT NULL,
    times       bigint NOT NULL DEFAULT 1,
    created_at  bigint NOT NULL,
    caller      text COLLATE "C" NOT NULL,
    method      text COLLATE "C" NOT NULL,
    filters     text COLLATE "C" NOT NULL,
    status      text COLLATE "C" NOT NULL
);
CREATE INDEX idx_query_log_created ON query_log (created_at, id);

CREATE TABLE pruned (
    id             bigint PRIMARY KEY DEFAULT next_position('pruned', 'id'),
    pruned_before  bigint NOT NULL,
    earliest       bigint,
    tool_calls     bigint NOT NULL,
    errors         bigint NOT NULL,
    model_requests bigint NOT NULL,
    input_tokens   bigint NOT NULL,
    output_tokens  bigint NOT NULL,
    cost_micros    bigint NOT NULL,
    sessions       bigint NOT NULL,
    started_at     bigint NOT NULL,
    finished_at    bigint,
    pruned_by      text COLLATE "C" NOT NULL
);

CREATE TABLE removal_log (
    position       bigint PRIMARY KEY DEFAULT next_position('removal_log'),
    first_position bigint NOT NULL,
    last_position  bigint NOT NULL,
    pruned_before  bigint NOT NULL,
    recorded_at    bigint NOT NULL,
    removed_kind   text COLLATE "C" NOT NULL,
    pruned_by      text COLLATE "C" NOT NULL
);

CREATE TABLE erasing (
    id             smallint PRIMARY KEY CHECK (id = 1),
    is_merged      smallint NOT NULL,
    erased_before  bigint NOT NULL,
    tool_calls     bigint NOT NULL,
    model_requests bigint NOT NULL,
    controls       bigint NOT NULL
);
INSERT INTO erasing VALUES (1, 1, 0, 0, 0, 0);

CREATE TABLE erasure_log (
    position       bigint PRIMARY KEY DEFAULT next_position('erasure_log'),
    first_position bigint NOT NULL,
    last_position  bigint NOT NULL,
    recorded_at    bigint NOT NULL,
    erased_kind    text COLLATE "C" NOT NULL,
    erased_by      text COLLATE "C" NOT NULL,
    reason         text COLLATE "C" NOT NULL
);
CREATE INDEX idx_erasure_log_rows ON erasure_log (erased_kind, first_position);

CREATE TABLE hold_log (
    position    bigint PRIMARY KEY DEFAULT next_position('hold_log'),
    recorded_at bigint NOT NULL,
    act         text COLLATE "C" NOT NULL CHECK (act IN ('placed', 'lifted')),
    name        text COLLATE "C" NOT NULL,
    filter      text COLLATE "C" NOT NULL,
    acted_by    text COLLATE "C" NOT NULL,
    reason      text COLLATE "C" NOT NULL
);

-- Rollups are updated in nearly every commit: what is left free in a page takes the new version of a row.
CREATE TABLE tool_call_usage_hourly (
    begins_at     bigint NOT NULL,
    engine        text COLLATE "C" NOT NULL,
    model         text COLLATE "C" NOT NULL,
    tool_name     text COLLATE "C" NOT NULL,
    outcome       text COLLATE "C" NOT NULL,
    calls         bigint NOT NULL,
    errors        bigint NOT NULL,
    nonzero_exits bigint NOT NULL,
    http_errors   bigint NOT NULL,
    result_bytes  bigint NOT NULL,
    duration_ms   bigint NOT NULL,
    durations     bytea NOT NULL,
    PRIMARY KEY (begins_at, engine, model, tool_name, outcome)
) WITH (fillfactor = 70);

CREATE TABLE tool_call_usage_daily (
    begins_at     bigint NOT NULL,
    engine        text COLLATE "C" NOT NULL,
    model         text COLLATE "C" NOT NULL,
    tool_name     text COLLATE "C" NOT NULL,
    outcome       text COLLATE "C" NOT NULL,
    calls         bigint NOT NULL,
    errors        bigint NOT NULL,
    nonzero_exits bigint NOT NULL,
    http_errors   bigint NOT NULL,
    result_bytes  bigint NOT NULL,
    duration_ms   bigint NOT NULL,
    durations     bytea NOT NULL,
    PRIMARY KEY (begins_at, engine, model, tool_name, outcome)
) WITH (fillfactor = 70);

CREATE TABLE tool_call_usage_32d (
    begins_at     bigint NOT NULL,
    engine        text COLLATE "C" NOT NULL,
    model         text COLLATE "C" NOT NULL,
    tool_name     text COLLATE "C" NOT NULL,
    outcome       text COLLATE "C" NOT NULL,
    calls         bigint NOT NULL,
    errors        bigint NOT NULL,
    nonzero_exits bigint NOT NULL,
    http_errors   bigint NOT NULL,
    result_bytes  bigint NOT NULL,
    duration_ms   bigint NOT NULL,
    durations     bytea NOT NULL,
    PRIMARY KEY (begins_at, engine, model, tool_name, outcome)
) WITH (fillfactor = 70);

CREATE TABLE request_usage_hourly (
    begins_at           bigint NOT NULL,
    engine              text COLLATE "C" NOT NULL,
    model               text COLLATE "C" NOT NULL,
    requests            bigint NOT NULL,
    errors              bigint NOT NULL,
    input_tokens        bigint NOT NULL,
    output_tokens       bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    reasoning_tokens    bigint NOT NULL,
    cost_micros         bigint NOT NULL,
    unpriced_requests   bigint NOT NULL,
    PRIMARY KEY (begins_at, engine, model)
) WITH (fillfactor = 70);

CREATE TABLE request_usage_daily (
    begins_at           bigint NOT NULL,
    engine              text COLLATE "C" NOT NULL,
    model               text COLLATE "C" NOT NULL,
    requests            bigint NOT NULL,
    errors              bigint NOT NULL,
    input_tokens        bigint NOT NULL,
    output_tokens       bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    reasoning_tokens    bigint NOT NULL,
    cost_micros         bigint NOT NULL,
    unpriced_requests   bigint NOT NULL,
    PRIMARY KEY (begins_at, engine, model)
) WITH (fillfactor = 70);

CREATE TABLE request_usage_32d (
    begins_at           bigint NOT NULL,
    engine              text COLLATE "C" NOT NULL,
    model               text COLLATE "C" NOT NULL,
    requests            bigint NOT NULL,
    errors              bigint NOT NULL,
    input_tokens        bigint NOT NULL,
    output_tokens       bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    reasoning_tokens    bigint NOT NULL,
    cost_micros         bigint NOT NULL,
    unpriced_requests   bigint NOT NULL,
    PRIMARY KEY (begins_at, engine, model)
) WITH (fillfactor = 70);

CREATE TABLE session_usage (
    session_id          text COLLATE "C" NOT NULL,
    recorded_by         text COLLATE "C" NOT NULL,
    engine              text COLLATE "C" NOT NULL,
    model               text COLLATE "C" NOT NULL,
    earliest            bigint NOT NULL,
    latest              bigint NOT NULL,
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
    PRIMARY KEY (session_id, recorded_by, engine, model)
) WITH (fillfactor = 70);

CREATE TABLE session_usage_summed (
    id             smallint PRIMARY KEY CHECK (id = 1),
    tool_calls     bigint NOT NULL,
    model_requests bigint NOT NULL
);
INSERT INTO session_usage_summed VALUES (1, 0, 0);

-- The seal's log, which SQLite's ledger has in a folder: its files by their paths, and which leaf is which row. Hashes are
-- not compressed in vain.
CREATE TABLE seal_files (
    path text COLLATE "C" PRIMARY KEY,
    data bytea NOT NULL
);
ALTER TABLE seal_files ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE seal_runs (
    first_index    bigint PRIMARY KEY,
    kind           text COLLATE "C" NOT NULL,
    version        bigint NOT NULL,
    first_position bigint NOT NULL,
    rows           bigint NOT NULL
);
CREATE INDEX idx_seal_runs_position ON seal_runs (kind, first_position);

CREATE TABLE seal_entries (
    position bigint PRIMARY KEY,
    leaf     text COLLATE "C" NOT NULL
);

CREATE TABLE seal_producers (
    id               text COLLATE "C" NOT NULL,
    recorded_by      text COLLATE "C" NOT NULL,
    highest_sequence bigint NOT NULL,
    PRIMARY KEY (id, recorded_by)
);

-- What the service's role, which may only add to the logs, has to remove and to change in them. Each puts on the record
-- what it did.

-- Removes rows that are older than the ledger's mark, and returns their positions; of revisions, those of sessions that
-- are gone. The last row of a log stays: its position must not come twice.
CREATE FUNCTION remove_rows(kind text, positions bigint[], removed_by text, now_ms bigint) RETURNS SETOF bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    mark bigint := (SELECT max(pruned_before) FROM pruned);
    removed bigint[];
BEGIN
    CASE kind
        WHEN 'tool_call' THEN
            WITH gone AS (
                DELETE FROM tool_call_log WHERE position = ANY (positions) AND created_at < mark
                AND coalesce(clock_suspect, 0) < mark AND position < (SELECT max(position) FROM tool_call_log)
                RETURNING position
            ) SELECT array_agg(position ORDER BY position) INTO removed FROM gone;
        WHEN 'model_request' THEN
            WITH gone AS (
                DELETE FROM cost_log WHERE position = ANY (positions) AND created_at < mark
                AND coalesce(clock_suspect, 0) < mark AND position < (SELECT max(position) FROM cost_log)
                RETURNING position
            ) SELECT array_agg(position ORDER BY position) INTO removed FROM gone;
        WHEN 'session' THEN
            WITH gone AS (
                DELETE FROM session_log l WHERE position = ANY (positions)
                AND NOT EXISTS (SELECT FROM sessions s WHERE s.id = l.id AND s.recorded_by = l.recorded_by)
                AND position < (SELECT max(position) FROM session_log)
                RETURNING position
            ) SELECT array_agg(position ORDER BY position) INTO removed FROM gone;
        WHEN 'query' THEN
            WITH gone AS (
                DELETE FROM query_log WHERE id = ANY (positions) AND created_at < mark
                AND id < (SELECT max(id) FROM query_log)
                RETURNING id
            ) SELECT array_agg(id ORDER BY id) INTO removed FROM gone;
        WHEN 'gap' THEN
            WITH gone AS (
                DELETE FROM gap_log WHERE position = ANY (positions) AND coalesce(recorded_at, 0) < mark
                AND position < (SELECT max(position) FROM gap_log)
                RETURNING position
            ) SELECT array_agg(position ORDER BY position) INTO removed FROM gone;
        ELSE RAISE EXCEPTION 'rows of the kind % are never removed', kind;
    END CASE;
    INSERT INTO removal_log (removed_kind, first_position, last_position, pruned_before, pruned_by, recorded_at)
    SELECT kind, min(place), max(place), mark, removed_by, now_ms
    FROM (SELECT place, place - row_number() OVER (ORDER BY place) AS run FROM unnest(removed) AS place) AS found
    GROUP BY run ORDER BY min(place);
    RETURN QUERY SELECT unnest(removed);
END
$$;

-- Erases the texts of rows that have not been erased, each with what is kept of them, and returns their positions.
CREATE FUNCTION erase_rows(
    kind text, positions bigint[], kept text[], erased_by text, reason text, now_ms bigint
) RETURNS SETOF bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    done bigint[];
BEGIN
    CASE kind
        WHEN 'tool_call' THEN
            WITH changed AS (
                UPDATE tool_call_log l SET salt = NULL, erased = said.kept, args_summary = '[erased]',
                    error = CASE WHEN error IS NOT NULL THEN '[erased]' END,
                    reason = CASE WHEN l.reason IS NOT NULL THEN '[erased]' END
                FROM unnest(positions, kept) AS said (place, kept)
                WHERE l.position = said.place AND l.erased IS NULL RETURNING l.position
            ) SELECT array_agg(position ORDER BY position) INTO done FROM changed;
        WHEN 'model_request' THEN
            WITH changed AS (
                UPDATE cost_log l SET salt = NULL, erased = said.kept, error = '[erased]'
                FROM unnest(positions, kept) AS said (place, kept)
                WHERE l.position = said.place AND l.erased IS NULL AND error IS NOT NULL RETURNING l.position
            ) SELECT array_agg(position ORDER BY position) INTO done FROM changed;
        WHEN 'control' THEN
            WITH changed AS (
                UPDATE control_log l SET salt = NULL, erased = said.kept, reason = '[erased]'
                FROM unnest(positions, kept) AS said (place, kept)
                WHERE l.position = said.place AND l.erased IS NULL AND l.reason IS NOT NULL RETURNING l.position
            ) SELECT array_agg(position ORDER BY position) INTO done FROM changed;
        ELSE RAISE EXCEPTION 'rows of the kind % have no texts', kind;
    END CASE;
    INSERT INTO erasure_log (erased_kind, first_position, last_position, erased_by, reason, recorded_at)
    SELECT erase_rows.kind, min(place), max(place), erase_rows.erased_by, erase_rows.reason, erase_rows.now_ms
    FROM (SELECT place, place - row_number() OVER (ORDER BY place) AS run FROM unnest(done) AS place) AS found
    GROUP BY run ORDER BY min(place);
    RETURN QUERY SELECT unnest(done);
END
$$;

REVOKE ALL ON FUNCTION remove_rows(text, bigint[], text, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION erase_rows(text, bigint[], text[], text, text, bigint) FROM PUBLIC;
