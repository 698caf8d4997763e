"""Connects to a host as browsers do: to one address after another, the next beside one that is slow (RFC 8305).

asyncio's own race leaves a socket to the garbage collector when it is cancelled just as an attempt succeeds.
"""

import asyncio
import socket
from contextlib import suppress
from itertools import chain, zip_longest
from typing import Any

_OTHER_ADDRESS_S = 0.25
"""How long to try one address before the next is tried beside it."""

_Address = tuple[socket.AddressFamily, Any]
"""Family, and what connect() takes."""


async def connect(host: str, port: int) -> socket.socket:
    """Opens a TCP connection. Every socket but the one that is returned is closed, also if this is cancelled.

    Raises:
        OSError: there is no such host (socket.gaierror), or none of its addresses takes the connection.
        UnicodeError: it is no name of a host.
    """
    addresses = await _addresses(host, port)
    attempts: set[asyncio.Task[socket.socket]] = set()
    errors: list[OSError] = []
    try:
        while addresses or attempts:
            if addresses:
                attempts.add(asyncio.create_task(_attempt(*addresses.pop(0))))
            wait_s = _OTHER_ADDRESS_S if addresses else None
            done, _ = await asyncio.wait(attempts, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                error = attempt.exception()
                attempts.discard(attempt)
                if error is None:
                    return attempt.result()
                if not isinstance(error, OSError):
                    raise error
                errors.append(error)
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_close)
    raise errors[0] if len(errors) == 1 else OSError("; ".join(map(str, errors)))


async def _addresses(host: str, port: int) -> list[_Address]:
    """The addresses of a host in the resolver's order, but the families by turns; an address is its own."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            socket.inet_pton(family, host)
            return [(family, (host, port))]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    by_family: dict[socket.AddressFamily, list[_Address]] = {}
    for family, _, _, _, address in found:
        by_family.setdefault(family, []).append((family, address))
    return [address for address in chain(*zip_longest(*by_family.values())) if address]


async def _attempt(family: socket.AddressFamily, address: Any) -> socket.socket:
    attempt = socket.socket(family, socket.SOCK_STREAM)
    try:
        attempt.setblocking(False)
        # asyncio sets this where a socket names its protocol: the end of a request waits for no acknowledgement.
        attempt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(attempt, address)
    except BaseException:
        attempt.close()
        raise
    return attempt


def _close(attempt: "asyncio.Task[socket.socket]") -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
