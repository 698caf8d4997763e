"""Maintenance of a file: backup, check, prune, vacuum, rebuild."""
