"""Calls that are told of before they end, or by several accounts: what becomes one row, and what is on the record."""
