CREATE TABLE conversation_keys (
    id text COLLATE "C" PRIMARY KEY,
    key_check bytea NOT NULL   -- what tells the key from others of this id, and nothing else of it
);
