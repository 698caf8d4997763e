"""Writing, inside the transaction that a writer has opened."""
