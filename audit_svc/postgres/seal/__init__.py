"""What the seal reads of a ledger in PostgreSQL, and its log in tables beside it."""
