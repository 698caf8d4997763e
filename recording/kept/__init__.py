"""Acked rows that stay on disk for a while, for a ledger that forgets them.

file        responsibility
folder.py   segments whose rows are all acked, out of the spools, up to a size
rows.py     the acked rows of a state directory: those, and the beginnings of its spools
"""
