"""What the databases of a ledger are told and asked in the same SQL. No driver is known here."""
