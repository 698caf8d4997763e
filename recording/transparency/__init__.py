"""What whoever does not trust a log needs: RFC 6962's hashes and proofs, signed notes, checkpoints, cosignatures.

Formats: https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint, https://c2sp.org/tlog-cosignature. Needs
`cryptography`, which the extra `grpc` of onrecord-client brings.
"""
