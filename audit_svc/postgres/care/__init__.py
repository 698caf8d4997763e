"""Care of a ledger: prunes, erasures, legal holds."""
