"""A ledger of plain Python lists, which keeps nothing on disk: the Ledger protocol in the plainest way, for tests."""
