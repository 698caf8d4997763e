"""Confines programs: the sandbox, limits, and the end of their processes."""
