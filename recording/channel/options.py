"""Options of gRPC channels, and whether an address is local."""

from pathlib import Path

import onrecord

MAX_MESSAGE_BYTES = 16 * 2**20
KEEPALIVE_SECONDS = 30
KEEPALIVE_TIMEOUT_SECONDS = 10

Options = list[tuple[str, int]]
ClientOptions = list[tuple[str, int | str]]

KEEPALIVE: Options = [
    ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]

DIRECT: Options = [("grpc.enable_http_proxy", 0)]
"""Ignores the proxies in `http_proxy` and `grpc_proxy`. They are meant for the web, would see a token that is sent
without TLS, and gRPC uses them even for addresses of this machine."""

_POLICIES = (Path(folder, "service_config.json") for folder in onrecord.__path__)
"""Of a package that may be in several folders. (importlib.resources finds it too, and takes long to load.)"""

RETRIES: ClientOptions = [
    ("grpc.service_config", next(path for path in _POLICIES if path.exists()).read_text("utf-8")),
    ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES),
]
"""The retry policy of protos/README.md, also for requests beyond 256 KiB, which gRPC sends once by default."""

CLIENT_OPTIONS: ClientOptions = [
    *KEEPALIVE,
    *DIRECT,
    *RETRIES,
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
]
"""Options for our own clients: keepalive as often as the servers allow, messages as large as the servers send."""


def is_local(listen: str) -> bool:
    """Whether only this machine can connect to listen, a gRPC address."""
    if listen.startswith("unix:"):
        return True
    import ipaddress  # who only asks need not wait for it

    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
