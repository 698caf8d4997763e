"""Moving a ledger from one store to another: it knows both."""
