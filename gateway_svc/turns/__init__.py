"""Turns on their sessions: queued, run, paid for, kept."""
