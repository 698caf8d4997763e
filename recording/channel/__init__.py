"""What a client needs to connect to a service: TLS, tokens, and files that are reloaded when they change."""
