"""The pages' server: a socket, Datasette on a read-only file, and the middleware that asks for the token."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from datasette.app import Datasette
from datasette.plugins import pm

from audit_svc.ui import failures, pages
from audit_svc.ui.ledger import Ledger
from audit_svc.ui.middleware import App, TokenMiddleware

log = structlog.get_logger(__name__)

QUERY_MS = 5000
"""How long a query may take, in milliseconds."""


def build(path: Path, token: str) -> tuple[App, Ledger]:
    """The application, and the ledger at path that it shows, which is to be closed at the end.

    Raises:
        StoreRefused: the ledger cannot be read.
    """
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
    ledger = Ledger(datasette, path)
    datasette.add_database(ledger, name=pages.DATABASE)
    return TokenMiddleware(datasette.app(), token), ledger


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_end: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_end = on_end

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends what is to be ended. After it, uvicorn raises the signal once more, which may end the process."""
        await super().shutdown(sockets)
        self._on_end()


def serve(app: App, ledger: Ledger, listening: socket.socket) -> None:
    """Answers until a signal comes, and closes the ledger. No line of a log has a query or a token."""
    host, port = listening.getsockname()[:2]
    log.info("service.listening", address=f"{host}:{port}")
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=3)
    _Server(config, ledger.close).run(sockets=[listening])
