"""A gRPC server from bind to drain: options, health, signals, exit codes."""

import asyncio
import os
import resource
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as aio_health
from grpc_reflection.v1alpha import reflection

from recording.channel.options import KEEPALIVE, KEEPALIVE_SECONDS, MAX_MESSAGE_BYTES, Options

log = structlog.get_logger(__name__)

EXIT_CANNOT_LISTEN = 1
EXIT_ENDED_BY_FORCE = 3

_FORCE_AFTER_SECONDS = 10.0
"""How long the process may go on after its drain time, to close files and to cancel what would not end by itself."""
_HANDSHAKE_SECONDS = 20


SERVER_OPTIONS: Options = [
    *KEEPALIVE,
    # Half of what clients of ours do: a ping that comes early because of a slow network is no abuse.
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_SECONDS * 1000 // 2),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A connection that does not say what it speaks is let go; gRPC itself waits for two minutes.
    ("grpc.server_handshake_timeout_ms", _HANDSHAKE_SECONDS * 1000),
    # With it, two processes on one port would each get some of the calls.
    ("grpc.so_reuseport", 0),
]


def build_server(interceptors: Sequence[grpc.aio.ServerInterceptor], options: Options | None = None) -> grpc.aio.Server:
    """A server with the options of this project, to which servicers can be added; options count before them."""
    merged = {**dict(SERVER_OPTIONS), **dict(options or [])}
    return grpc.aio.server(interceptors=interceptors, options=list(merged.items()))


def add_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Lets clients ask server for the descriptions of services, of health, and of reflection itself."""
    names = [*services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)


async def add_health(server: grpc.aio.Server, services: Sequence[str]) -> aio_health.HealthServicer:
    """Adds grpc.health.v1 to server: overall (the empty name), and for each of services by its full name."""
    health = aio_health.HealthServicer()
    for service in ["", *services]:
        await health.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    return health


def bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None = None) -> str:
    """Binds server to listen, "host:port" where port 0 takes a free one, and returns the address with the real port.

    credentials: None for plain text. A Unix socket, "unix:path", is its own address.

    Raises:
        SystemExit: with code 1, after a log line, when the address cannot be had.
    """
    try:
        port = server.add_insecure_port(listen) if credentials is None else server.add_secure_port(listen, credentials)
    except RuntimeError:
        log.error(
            "service.cannot_listen",
            address=listen,
            hint="another process listens there, or the address is not this machine's: stop it or choose another",
        )
        raise SystemExit(EXIT_CANNOT_LISTEN) from None
    return listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"


async def serve(
    server: grpc.aio.Server,
    health: aio_health.HealthServicer,
    *,
    listen: str,
    credentials: grpc.ServerCredentials | None = None,
    grace_seconds: float,
    on_drain: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then drains: NOT_SERVING, on_drain, no new calls, running ones up to the grace.

    The log line `service.listening` tells the address. on_drain asks running calls to come to their end; it and they
    together get grace_seconds. A second signal ends the process at once. Whatever hangs, the process ends soon after
    the grace, by force if need be and then with exit code 3.

    Raises:
        SystemExit: with code 1, when the address cannot be had.
    """
    _allow_many_files()
    address = bind(server, listen, credentials)
    stop = _stop_signal()
    await server.start()
    log.info("service.listening", address=address)
    await stop
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace_seconds
    log.info("service.draining", grace_seconds=grace_seconds)
    _end_by_force(grace_seconds + _FORCE_AFTER_SECONDS)
    await health.enter_graceful_shutdown()
    if on_drain is not None:
        try:
            async with asyncio.timeout_at(deadline):
                await on_drain()
        except TimeoutError:
            log.warning("service.drain_cut_short")
    await server.stop(max(0.0, deadline - loop.time()))
    log.info("service.stopped")


def _end_by_force(after_seconds: float) -> None:
    """Ends the process although a thread or a handler of it hangs. What is on disk is as after a kill."""

    def end() -> None:
        log.error("service.ended_by_force", after_seconds=after_seconds)
        os._exit(EXIT_ENDED_BY_FORCE)

    timer = threading.Timer(after_seconds, end)
    timer.daemon = True
    timer.start()


def _allow_many_files() -> None:
    """As many as the machine allows: the usual limit of 1,024 is less than the connections that a peer can open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _stop_signal() -> asyncio.Future[None]:
    """Done at the first SIGTERM or SIGINT, after which either has its ordinary effect again: death."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()

    def arrived() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        stop.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, arrived)
    return stop
