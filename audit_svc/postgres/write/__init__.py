"""Writing: one thread, group commits by COPY."""
