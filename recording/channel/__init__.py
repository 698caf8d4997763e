"""How a client comes in to a service: TLS, tokens, and files that are read again when they change."""
