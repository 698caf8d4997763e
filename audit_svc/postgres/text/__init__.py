"""Texts in the arguments of tool calls, by pg_trgm."""
