"""audit_svc on a database of a PostgreSQL server."""

from demo.processes import Service, start_service


def start_replica(url: str, **settings: str) -> Service:
    """audit_svc on the database at url, which it may share with others."""
    env = {
        "AUDIT_LISTEN": "127.0.0.1:0",
        "AUDIT_DB": url,
        "AUDIT_LOG_LEVEL": "info",
        "AUDIT_SEAL_SECONDS": "0",
        **settings,
    }
    return start_service("audit_svc", env, "serve", listen_seconds=60)
