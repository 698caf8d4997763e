CREATE TABLE gateway_requests (
    caller text COLLATE "C" NOT NULL,      -- the caller's name; empty where callers have none
    request_id text COLLATE "C" NOT NULL,
    digest text NOT NULL,                  -- of the request's content
    claim uuid NOT NULL,                   -- of the attempt that may run it
    holder integer NOT NULL,               -- the gateway that runs it
    session_id text NOT NULL DEFAULT '',
    turn_id text NOT NULL DEFAULT '',      -- empty until a turn runs
    accepted_ms bigint NOT NULL DEFAULT 0, -- milliseconds since 1970-01-01 UTC
    finished bytea,                        -- the turn's last event, without what others said
    ended_at timestamptz,                  -- when its turn has ended, or its gateway was found gone, by this server's clock
    PRIMARY KEY (caller, request_id)
);

CREATE INDEX gateway_requests_running ON gateway_requests (holder) WHERE ended_at IS NULL;
CREATE INDEX gateway_requests_ended ON gateway_requests (ended_at) WHERE ended_at IS NOT NULL;
