"""The questions as SQL that every SQL database of a ledger takes. No driver is known here."""
