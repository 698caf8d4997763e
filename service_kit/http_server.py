"""An ASGI application beside a service's gRPC: its socket, its TLS, its end with the service."""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from recording.channel.watched import Watched
from service_kit.access.tls import ServerFiles
from service_kit.server import CANNOT_LISTEN_HINT, EXIT_CANNOT_LISTEN

log = structlog.get_logger(__name__)

_SHUTDOWN_SECONDS = 2
_IDLE_SECONDS = 60
"""How long a connection may be open without a request: from its first byte to the head's last one, and in between."""
_BACKLOG = 2048
_ASK_SECONDS = 1.0
_READ_BYTES = 16 * 1024
"""How much is read before others have their turn, where there is no TLS: h11 takes 30 ms for it in chunks of a byte."""


class _Protocol(H11Protocol):
    """Bounds the time of a request's head too, by the timer that uvicorn has for a connection between two requests.

    uvicorn starts it behind a response alone, and stops it at the first byte of anything.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        if hasattr(transport, "max_size"):  # asyncio's, of 256 KiB
            transport.max_size = _READ_BYTES
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        waiting, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        super().data_received(data)
        if waiting is None:
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.timeout_keep_alive_task is not None or self.transport.is_closing():
            waiting.cancel()
        else:  # bytes that begin no request give no more time
            self.timeout_keep_alive_task = waiting


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The service hears signals, and ends this server."""
        yield


@asynccontextmanager
async def serve_http(app: Any, listen: str, files: ServerFiles | None, most_connections: int) -> AsyncIterator[str]:
    """Serves app on listen while the body runs.

    Yields the address, which the log line `http.listening` tells too.

    Args:
        app: an ASGI application.
        listen: "host:port", where port 0 takes a free one, or "unix:path": a socket for this user alone.
        files: None for plain text. They are read again when they change.
        most_connections: further requests are answered with 503.

    Raises:
        SystemExit: with code 1, after a log line, when the address cannot be had.
    """
    path = Path(listen.removeprefix("unix:")) if listen.startswith("unix:") else None
    try:
        listening = _unix_socket(path) if path else _tcp_socket(listen)
    except OSError as error:
        log.error(
            "http.cannot_listen",
            address=listen,
            reason=error.strerror,
            hint=CANNOT_LISTEN_HINT,
        )
        raise SystemExit(EXIT_CANNOT_LISTEN) from None
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=most_connections,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        ssl_context_factory=_context_factory(files) if files else None,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="http")
    address = listen if path else f"{listen.rpartition(':')[0]}:{listening.getsockname()[1]}"
    log.info("http.listening", address=address)
    try:
        yield address
    finally:
        server.should_exit = True
        await asyncio.wait([serving])
        if path:
            path.unlink(missing_ok=True)


def _tcp_socket(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, int(port)), family=family, backlog=_BACKLOG)
    # A response's head and body are two writes: without this the second waits until the client acknowledges the first,
    # up to 40 ms on Linux. Connections have it from here; asyncio sets it where a socket names its protocol alone.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _unix_socket(path: Path) -> socket.socket:
    """In the place of one that nobody listens on any more."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(_ASK_SECONDS)
        try:
            asking.connect(str(path))
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            if path.is_socket():
                path.unlink()
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    listening = socket.socket(socket.AF_UNIX)
    try:
        os.fchmod(listening.fileno(), 0o600)  # which the file has from its beginning
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _context_factory(files: ServerFiles) -> Any:
    """What makes the TLS of a server that shows the certificate as it is at each handshake."""
    paths = [files.certificate, files.key, *([files.client_ca] if files.client_ca else [])]

    def load(_: Sequence[bytes]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(files.certificate, files.key)
        if files.client_ca:
            context.load_verify_locations(files.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    watched = Watched(paths, load)

    def renew(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = watched.current()

    def make(config: uvicorn.Config, default: Any) -> ssl.SSLContext:
        context = watched.current()
        context.sni_callback = renew
        return context

    return make
