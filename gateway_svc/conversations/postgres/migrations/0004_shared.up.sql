CREATE TABLE gateway_stops (
    id text COLLATE "C" PRIMARY KEY,
    stop bytea NOT NULL,               -- an onrecord.gateway.v1.Stop
    lets_calls_end boolean NOT NULL,   -- whether calls that run when it comes go on to their end
    lifted_at timestamptz              -- by this server's clock; NULL: in force
);

CREATE INDEX gateway_stops_lifted ON gateway_stops (lifted_at);

-- Who asks makes the ids of calls, at random: after a crash none stands for another's. So nothing of them needs a log.
ALTER TABLE gateway_calls ADD COLUMN target integer;   -- the gateway that is asked; NULL: all others
ALTER TABLE gateway_calls ALTER COLUMN id DROP IDENTITY;
ALTER TABLE gateway_answers SET UNLOGGED;
ALTER TABLE gateway_calls SET UNLOGGED;

CREATE TABLE gateway_spending (
    account text COLLATE "C" NOT NULL, -- JSON: a label's key, its value, and the period
    gateway integer NOT NULL,          -- whose sum it is; 0: those of gateways that are long gone
    micros bigint NOT NULL,            -- millionths of a US dollar
    updated_at timestamptz NOT NULL,   -- by this server's clock
    PRIMARY KEY (account, gateway)
);
