"""Checks addresses, and reads pages."""
