"""PostgreSQL under the ledger and under sessions, beside SQLite and files."""
