"""The pages' server: a socket, Datasette on a read-only file, and the middleware that asks for the token."""

import socket
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from datasette.app import Datasette
from datasette.database import Database
from datasette.plugins import pm

from audit_svc.ui import failures, pages
from audit_svc.ui.middleware import App, TokenMiddleware

log = structlog.get_logger(__name__)

QUERY_MS = 5000
"""How long a query may take, in milliseconds."""


class _Ledger(Database):  # type: ignore[misc] # Datasette has no types
    """A database whose queries are not written to stderr when they fail: what somebody searched for may be a secret."""

    async def execute(self, *args: Any, **options: Any) -> Any:
        return await super().execute(*args, **{**options, "log_sql_errors": False})


def build(ledger: Path, token: str) -> App:
    """The application. ledger is opened with mode=ro, which lets a running service write to it meanwhile."""
    if not pm.is_registered(pages):
        pm.register(pages, name="onrecord")
        pm.unregister(name=failures.DATASETTES_OWN)
        pm.register(failures, name="onrecord-failures")
    datasette: Any = Datasette(
        [],
        template_dir=str(Path(__file__).parent / "templates"),
        metadata={"title": "onrecord"},
        settings={
            "sql_time_limit_ms": QUERY_MS,
            "suggest_facets": False,
            "allow_download": False,
            "num_sql_threads": 3,
        },
    )
    datasette.add_database(_Ledger(datasette, path=str(ledger), is_mutable=True), name=pages.DATABASE)
    return TokenMiddleware(datasette.app(), token)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def serve(app: App, listening: socket.socket) -> None:
    """Answers until a signal comes. No line of a log has a query or a token."""
    host, port = listening.getsockname()[:2]
    log.info("service.listening", address=f"{host}:{port}")
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=3)
    uvicorn.Server(config).run(sockets=[listening])
