"""Clients in other languages, and what runs them."""
