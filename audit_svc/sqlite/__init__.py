"""The ledger in SQLite, which is known in this package alone."""
