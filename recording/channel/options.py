"""Options of gRPC channels, and whether an address is local."""

import ipaddress

MAX_MESSAGE_BYTES = 16 * 2**20
KEEPALIVE_SECONDS = 30
KEEPALIVE_TIMEOUT_SECONDS = 10

Options = list[tuple[str, int]]

KEEPALIVE: Options = [
    ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]

DIRECT: Options = [("grpc.enable_http_proxy", 0)]
"""Ignores the proxies in `http_proxy` and `grpc_proxy`. They are meant for the web, would see a token that is sent
without TLS, and gRPC uses them even for addresses of this machine."""

CLIENT_OPTIONS: Options = [*KEEPALIVE, *DIRECT, ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
"""Options for our own clients: keepalive as often as the servers allow, messages as large as the servers send."""


def is_local(listen: str) -> bool:
    """Whether only this machine can connect to listen, a gRPC address."""
    if listen.startswith("unix:"):
        return True
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
