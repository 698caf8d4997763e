"""Writing: one thread, group commits."""
