"""gateway_svc runs engines with an agent loop and tools, and sends one audit row per tool call to the audit service."""
