"""Stopping agents: what is stopped, who is reached, and what is kept of it."""
