"""The ledger as pages: Datasette over the file, opened read-only, with charts and canned queries behind a token.

It needs the extra `ui`. Nothing here is imported by the service.
"""
