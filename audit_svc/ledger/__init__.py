"""The ledger without a database: what is stored and asked, and what a store of it can do."""
