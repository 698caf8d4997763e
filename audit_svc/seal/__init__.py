"""The seal: a transparency log of the ledger's rows in an open format, so that none is changed or removed unnoticed.

A process of its own reads what was committed, hashes it and signs what it has seen. It never writes the ledger, and
alone holds the key. Formats: https://c2sp.org/tlog-tiles, https://c2sp.org/tlog-checkpoint,
https://c2sp.org/signed-note, https://c2sp.org/tlog-proof; hashes are those of RFC 6962. What a leaf is stands in
docs/seal-format.md.
"""
