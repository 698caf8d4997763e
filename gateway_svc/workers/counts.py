"""Limits of a gateway, counted over all of its workers."""

import asyncio

from gateway_svc.workers.table import Field, Table
from service_kit.access.guard import SharedLimits

LOOK_AGAIN_SECONDS = 0.02
"""How soon a turn that waits for a place looks whether another worker has let one go."""


class SharedCount:
    """A Count (service_kit.access.calls) of all workers."""

    def __init__(self, table: Table, field: Field) -> None:
        self._table = table
        self._field = field

    def try_take(self, limit: int) -> bool:
        """Counts one more, unless there are `limit` in all workers; returns whether it did."""
        return self._table.try_take(self._field, limit)

    def release(self) -> None:
        """Counts one less."""
        self._table.release(self._field)


class SharedPlaces:
    """Places for what runs in all workers, to wait for. Within a worker they are given in the order of asking."""

    def __init__(self, count: SharedCount, limit: int) -> None:
        self._count = count
        self._limit = limit
        self._first = asyncio.Lock()

    async def __aenter__(self) -> None:
        async with self._first:
            while not self._count.try_take(self._limit):  # noqa: ASYNC110 - no event comes from another process
                await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def __aexit__(self, *_: object) -> None:
        self._count.release()


def shared_limits(table: Table) -> SharedLimits:
    """The limits of calls and of their rate, over all workers."""
    return SharedLimits(SharedCount(table, Field.CALLS), SharedCount(table, Field.HEALTH_CALLS), table.take_token)
