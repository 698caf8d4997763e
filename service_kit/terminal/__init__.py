"""Command lines: what a command takes, how it is found and run, and how rows look. Nothing here is slow to load."""
