"""Spreads requests over several HTTP clients.

For each request, httpcore2 scans all connections of its pool. With hundreds of them, that takes longer than everything
else in a step. Many small pools avoid it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2

REQUESTS_A_CLIENT = 16


@dataclass(slots=True)
class _Lent:
    client: httpx2.AsyncClient
    requests: int = 0


class Clients:
    """As many clients as the current requests need. A new one is made when all others are full."""

    def __init__(self, make: Callable[[], httpx2.AsyncClient]) -> None:
        self._make = make
        self._lent = [_Lent(make())]

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
        try:
            yield lent.client
        finally:
            lent.requests -= 1

    async def aclose(self) -> None:
        """Closes all of them."""
        for lent in self._lent:
            await lent.client.aclose()
