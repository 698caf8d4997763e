"""Where the other replicas reach this service."""

import ipaddress
import socket

from audit_svc.postgres.open.connection import said_in
from audit_svc.settings import AuditSettings

_PORT = 5432


def replica_address(settings: AuditSettings, url: str) -> str:
    """The address that the settings give, or that follows from where it listens; empty where none does.

    Of a service that listens on all addresses of its machine it is the one from which it reaches the database at url.
    """
    if settings.replica_address:
        return settings.replica_address
    host, _, port = settings.listen.rpartition(":")
    if settings.listen.startswith("unix:") or port == "0":
        return ""
    try:
        is_every = ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        is_every = not host
    if not is_every:
        return settings.listen
    own = _own_address(url)
    return f"[{own}]:{port}" if ":" in own else f"{own}:{port}" if own else ""


def _own_address(url: str) -> str:
    said = said_in(url)
    host = str(said.get("hostaddr") or said.get("host") or "").partition(",")[0]
    if not host or host.startswith(("/", "@")):
        return "127.0.0.1"  # the database is reached by a socket of this machine, and so are the other replicas
    port = int(str(said.get("port") or _PORT).partition(",")[0])
    try:
        family, kind, _, _, there = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as looking:
            looking.connect(there)  # sends nothing
            return str(looking.getsockname()[0])
    except OSError:
        return ""
