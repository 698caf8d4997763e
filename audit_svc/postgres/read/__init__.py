"""Questions to a ledger in PostgreSQL, on connections that only read."""
