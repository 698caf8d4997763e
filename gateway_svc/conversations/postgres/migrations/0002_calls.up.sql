CREATE TABLE gateway_calls (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asked_by integer NOT NULL,         -- the gateway that a client has called
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    method text NOT NULL,              -- /package.Service/Method
    request bytea NOT NULL,
    caller text NOT NULL               -- JSON: who has called; empty where callers have no names
);

CREATE TABLE gateway_answers (
    call_id bigint NOT NULL REFERENCES gateway_calls ON DELETE CASCADE,
    gateway integer NOT NULL,
    answer bytea,                      -- the response
    status bytea,                      -- or why there is none: a google.rpc.Status
    PRIMARY KEY (call_id, gateway)
);

CREATE TABLE gateway_keys (
    name text PRIMARY KEY,
    key bytea NOT NULL                 -- that all gateways use
);
