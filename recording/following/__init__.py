"""Sends the rows of other processes: of applications that only append to files, while they run and when they ended.

file          responsibility
growing.py    the segments of a folder that another process writes to
followed.py   batches from it, in order, and how far it is acked
follower.py   which folders there are, who still lives, and one follower for a state directory
program.py    the program `onrecord-send`, which a Ledger starts by need
"""
