"""A producer remembers what the ledger showed it, so that a ledger that forgets is told.

file          responsibility
doubts.py     whether the ledger is doubted: a file that every process of a state directory reads
view.py       what was seen of the ledger's log, on disk
proofs.py     what is asked about the ledger's log
checks.py     what an answer of the ledger proves, or contradicts
acked_rows.py whether rows that it acknowledged are still there
returning.py  kept rows, sent again
cosigning.py  the key with which it says what it has seen
witness.py    the looks, again and again

Only `doubts` is loaded by processes that just append; the others need gRPC and `cryptography`.
"""
