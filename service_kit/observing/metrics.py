"""Metrics for Prometheus, over plain HTTP on a port of their own: names and numbers, no content and no secret."""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, disable_created_metrics, make_wsgi_app
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from recording.upkeep import failures
from service_kit.server import CANNOT_LISTEN_HINT, EXIT_CANNOT_LISTEN

log = structlog.get_logger(__name__)

_SILENT_SECONDS = 5.0
_SCRAPES_AT_ONCE = 8
"""Further connections are closed at once, so that nobody can make threads without end."""


def new_registry() -> CollectorRegistry:
    """A registry that knows the process's memory, CPU time and open files, and the garbage collector's work."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # its one function without annotations
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class UpkeepCollector(Collector):
    """How often each task of the process's upkeep failed."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The counts now (prometheus_client's Collector)."""
        family = CounterMetricFamily(
            "onrecord_upkeep_failures", "Tries of a task of the service's upkeep that failed.", labels=["task"]
        )
        for task, count in sorted(failures.items()):
            family.add_metric([task], count)
        yield family


@contextmanager
def serve_metrics(listen: str | Path, registry: CollectorRegistry) -> Iterator[None]:
    """Serves GET /metrics on listen, "host:port" where port 0 takes a free one; nothing when listen is empty. A path is
    that of a Unix socket, which is made.

    It answers from threads of its own, so that a scrape neither waits for the event loop nor holds it up.

    Raises:
        SystemExit: with code 1, after a log line, when the address cannot be had.
    """
    if not listen:
        yield
        return
    cls: type[_Server]
    if isinstance(listen, Path):
        host, port, cls = str(listen), "0", _SocketServer
    else:
        host, _, port = listen.rpartition(":")
        cls = _Server6 if ":" in host else _Server
    try:
        server = make_server(host.strip("[]"), int(port), make_wsgi_app(registry), cls, _Handler)
    except OSError as error:
        log.error(
            "metrics.cannot_listen",
            address=listen,
            reason=error.strerror,
            hint=CANNOT_LISTEN_HINT,
        )
        raise SystemExit(EXIT_CANNOT_LISTEN) from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="metrics", daemon=True)
    thread.start()
    if server.server_port:
        log.info("metrics.listening", address=f"{host}:{server.server_port}")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64
    """Connections that wait to be taken or closed; the kernel makes those beyond try again after a second or more."""

    def __init__(self, *args: Any) -> None:
        self._places = threading.Semaphore(_SCRAPES_AT_ONCE)
        super().__init__(*args)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)
        # HTTPServer would ask the name service for this host's name, which can take seconds and is of no use here.
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[0]
        log.debug("metrics.scrape_failed", error=error.__name__ if error else "")


class _Server6(_Server):
    address_family = socket.AF_INET6


class _SocketServer(_Server):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        path = str(self.server_address[0])
        Path(path).unlink(missing_ok=True)  # of a process that is gone
        self.socket.bind(path)
        self.server_name, self.server_port = "", 0
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        # its peers have no addresses, which the handler would look at
        return self.socket.accept()[0], ("", 0)


class _Handler(WSGIRequestHandler):
    timeout = _SILENT_SECONDS
    """Who connects and says nothing is let go, so that it holds no thread."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the base class
        """Scrapes are no events."""
