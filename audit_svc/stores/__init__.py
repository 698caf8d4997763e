"""What a service serves a ledger from, chosen by AUDIT_DB: an SQLite file, or a PostgreSQL that replicas share."""
