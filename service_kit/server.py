"""A gRPC server of this project: its options, its interceptors, its address."""

import socket
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import grpc
import structlog
from grpc_reflection.v1alpha import reflection

from recording.channel.options import KEEPALIVE, KEEPALIVE_SECONDS, Options
from service_kit.access.known_fields import KnownFieldsInterceptor
from service_kit.access.request_parts import RequestPartsInterceptor
from service_kit.errors import ErrorInterceptor
from service_kit.health import SERVICE as HEALTH

log = structlog.get_logger(__name__)

EXIT_CANNOT_LISTEN = 1
CANNOT_LISTEN_HINT = "another process listens there, or the address is not this machine's: stop it or choose another"
_HANDSHAKE_SECONDS = 20
_MAX_PENDING = 100_000


SERVER_OPTIONS: Options = [
    *KEEPALIVE,
    # Half of what clients of ours do: a ping that comes early because of a slow network is no abuse.
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_SECONDS * 1000 // 2),
    # A connection that does not say what it speaks is let go; gRPC itself waits for two minutes.
    ("grpc.server_handshake_timeout_ms", _HANDSHAKE_SECONDS * 1000),
    # Those that wait for the event loop. gRPC cancels some of 1,000 and all beyond 3,000 by default, without a word:
    # calls are bounded where the client is told (service_kit.access.calls).
    ("grpc.server.max_pending_requests", _MAX_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING),
    # What a client may send of a request that is not read yet: by measuring the bandwidth gRPC lets a fast one send
    # megabytes on each call. A request that is being read may come as fast as it likes.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 * 1024),
    # With it, two processes on one port each get some of the calls: for those of one service alone.
    ("grpc.so_reuseport", 0),
]


def build_server(interceptors: Sequence[grpc.aio.ServerInterceptor], options: Options | None = None) -> grpc.aio.Server:
    """A server with the options of this project, to which servicers can be added; options count before them."""
    merged = {**dict(SERVER_OPTIONS), **dict(options or [])}
    return grpc.aio.server(interceptors=interceptors, options=list(merged.items()))


def answering(
    errors: ErrorInterceptor,
    names: Iterable[str],
    takes_unknown_fields: Collection[str] = (),
    guards: Iterable[grpc.aio.ServerInterceptor] = (),
) -> list[grpc.aio.ServerInterceptor]:
    """What every server of ours has, outermost first: statuses of errors, guards, the check of requests.

    names: the full names of the services; takes_unknown_fields: see KnownFieldsInterceptor.
    """
    return [errors, *guards, RequestPartsInterceptor(), KnownFieldsInterceptor(names, takes_unknown_fields)]


def add_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Lets clients ask server for the descriptions of services, of health, and of reflection itself."""
    reflection.enable_server_reflection([*services, HEALTH, reflection.SERVICE_NAME], server)


def refuse_taken(*addresses: str) -> None:
    """Ends the process where an address cannot be had. Called before anything is made on the disk: a service that
    never ran leaves nothing there. What is taken later, bind() tells. Empty addresses and Unix sockets are passed over.

    Raises:
        SystemExit: with code 1, after a log line.
    """
    for listen in addresses:
        if listen and not listen.startswith("unix:") and _is_taken(listen):
            raise _cannot_listen(listen)


def bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None = None) -> str:
    """Binds server to listen, "host:port" where port 0 takes a free one, and returns the address with the real port.

    credentials: None for plain text. A Unix socket, "unix:path", is its own address.

    Raises:
        SystemExit: with code 1, after a log line, when the address cannot be had.
    """
    try:
        port = server.add_insecure_port(listen) if credentials is None else server.add_secure_port(listen, credentials)
    except RuntimeError:
        raise _cannot_listen(listen) from None
    return listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"


def _cannot_listen(listen: str) -> SystemExit:
    log.error("service.cannot_listen", address=listen, hint=CANNOT_LISTEN_HINT)
    return SystemExit(EXIT_CANNOT_LISTEN)


def _is_taken(listen: str) -> bool:
    """Whether none of the addresses of that name can be bound."""
    name, _, port = listen.rpartition(":")
    try:
        host = name.strip("[]") or None
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return True
    return not any(_can_be_bound(family, address) for family, _, _, _, address in found)


def _can_be_bound(family: socket.AddressFamily, address: Any) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC's: ended connections do not count
            tried.bind(address)
    except OSError:
        return False
    return True
