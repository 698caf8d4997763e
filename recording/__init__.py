"""What any producer needs: rows, their redaction, a spool on disk, and delivery to the ledger."""
