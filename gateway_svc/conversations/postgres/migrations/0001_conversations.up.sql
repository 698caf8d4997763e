CREATE TABLE gateways (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    beat_at timestamptz NOT NULL   -- when it last told that it lives, by this server's clock
);

CREATE TABLE conversations (
    id text COLLATE "C" PRIMARY KEY,
    owner text COLLATE "C" NOT NULL,   -- the caller's name; empty where callers have none
    created_at_ms bigint NOT NULL,     -- milliseconds since 1970-01-01 UTC, as the next one
    updated_at_ms bigint NOT NULL,
    state bytea NOT NULL,              -- JSON: the session without its prompt
    prompt bytea NOT NULL,             -- JSON; empty where there is none
    sums bytea,                        -- JSON: what a running turn has spent since; a revision of the state
    records bigint NOT NULL,           -- the number of the last record
    bytes bigint NOT NULL,             -- of all records' payloads
    holder integer,                    -- the gateway that has it; 0: one that left it in the middle of a turn
    fence bigint NOT NULL              -- how often it was taken
);

CREATE INDEX conversations_by_owner ON conversations (owner, id);
CREATE INDEX conversations_held ON conversations (holder) WHERE holder IS NOT NULL;

CREATE TABLE conversation_records (
    session_id text COLLATE "C" NOT NULL REFERENCES conversations ON DELETE CASCADE,
    number bigint NOT NULL,            -- from 1, without holes
    kind smallint NOT NULL,            -- 1 user, 2 assistant, 3 tool
    payload bytea NOT NULL,            -- JSON: the message
    PRIMARY KEY (session_id, number)
);
