"""Spreads requests over several HTTP clients.

For each request, httpcore2 scans all connections of its pool. With hundreds of them, that takes longer than everything
else in a step. Many small pools avoid it.

A pool closes idle connections only when it is next asked for one, so a client that nobody uses is closed here.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2

REQUESTS_A_CLIENT = 16
IDLE_SECONDS = 10.0
"""How long a connection is kept without a request."""


@dataclass(slots=True)
class _Lent:
    client: httpx2.AsyncClient
    requests: int = 0
    closing: asyncio.TimerHandle | None = None


class Clients:
    """As many clients as the current requests need. A new one is made when all others are full."""

    def __init__(self, make: Callable[[], httpx2.AsyncClient]) -> None:
        self._make = make
        self._lent: list[_Lent] = []
        self._closing: set[asyncio.Task[None]] = set()

    @contextmanager
    def lend(self) -> Iterator[httpx2.AsyncClient]:
        """A client for one request."""
        for lent in self._lent:
            if lent.requests < REQUESTS_A_CLIENT:
                break
        else:
            lent = _Lent(self._make())
            self._lent.append(lent)
        lent.requests += 1
        if lent.closing:
            lent.closing.cancel()
        try:
            yield lent.client
        finally:
            lent.requests -= 1
            if not lent.requests:
                lent.closing = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._close, lent)

    async def aclose(self) -> None:
        """Closes all of them."""
        for lent in self._lent:
            if lent.closing:
                lent.closing.cancel()
            await lent.client.aclose()
        await asyncio.gather(*self._closing)

    def _close(self, lent: _Lent) -> None:
        self._lent.remove(lent)
        task = asyncio.get_running_loop().create_task(lent.client.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
