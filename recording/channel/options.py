"""Options of gRPC channels, and where an address can be reached from."""

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
"""No way through a proxy that `http_proxy` or `grpc_proxy` names: it is there for the web, and would be shown a token
that is sent without TLS. gRPC asks it even for addresses of this machine."""

CLIENT_OPTIONS: Options = [*KEEPALIVE, *DIRECT, ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
"""Channel options for clients of our own: keepalive as often as the servers allow, messages as large as they send."""


def is_local(listen: str) -> bool:
    """Whether only this machine can connect to listen, as gRPC names addresses."""
    if listen.startswith("unix:"):
        return True
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
