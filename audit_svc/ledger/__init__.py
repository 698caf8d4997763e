"""The ledger without a database: what is stored, what is asked, and what a store can do."""
