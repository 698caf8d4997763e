"""Ports for servers that come and go."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_port() -> Iterator[int]:
    """A port of 127.0.0.1 that nobody else gets while nobody listens there: tests run side by side, on random ports.

    It is bound and not listened on: connections are refused, and a server with SO_REUSEADDR, which all set, may listen.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
