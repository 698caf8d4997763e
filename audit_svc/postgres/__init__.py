"""The ledger in PostgreSQL, 15 or later: any number of replicas, of which one writes."""
