"""audit_svc owns the ledger: the SQLite database, its migrations, what is recorded and what is asked."""
