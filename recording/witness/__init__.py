"""A producer remembers what the ledger showed it, so that a ledger that forgets is told.

file          responsibility
doubts.py     whether the ledger is doubted: a file that every process of a state directory reads
view.py       what was seen of the ledger's log, on disk
checks.py     what an answer of the ledger proves, or contradicts
returning.py  kept rows, sent again
cosigning.py  the key with which it says what it has seen
witness.py    the looks, again and again

Only `doubts` is loaded by processes that just append; the others need gRPC and `cryptography`.
"""
