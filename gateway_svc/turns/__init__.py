"""Turns and their sessions: queue, run, account."""
