"""Ports for servers that come and go."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def own_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A port of this machine that nobody else gets while nobody listens there: tests run side by side, on random ports.

    It is bound and not listened on: connections are refused, and a server with SO_REUSEADDR, which all set, may listen.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, 0))
        yield held.getsockname()[1]


def _has_ipv6() -> bool:
    try:
        with own_port("::1"):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
