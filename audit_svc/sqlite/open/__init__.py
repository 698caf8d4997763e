"""Opening the database file: the lock, the connections, the schema."""
