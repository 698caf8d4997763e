"""The record as pages: a web application over the RPCs of a ledger and a gateway, behind a token of its own.

It needs the extra `ui`. Nothing here is imported by the service.
"""
