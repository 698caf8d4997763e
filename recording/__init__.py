"""What any producer needs: rows, redaction, a spool on disk, and delivery to the ledger."""
