"""Care of a ledger: prunes, erasures, legal holds, each step in a transaction that the writer has opened."""
