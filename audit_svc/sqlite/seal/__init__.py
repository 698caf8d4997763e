"""What the seal reads of a ledger in SQLite, and its log in a folder."""
