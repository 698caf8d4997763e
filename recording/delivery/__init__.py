"""From the spool to the ledger, and back with its acks."""
