"""Care of a running ledger: prunes and erasures through the writer, one of each at a time."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

from onrecord.audit.v1 import administration_pb2

from audit_svc.errors import AlreadyRunning
from audit_svc.ledger.erasing import ErasingProgress, Erasure
from audit_svc.ledger.group_commit import GroupCommit
from audit_svc.ledger.holds import Act
from audit_svc.ledger.pruning import Progress
from audit_svc.sql.care.erase import count as count_erasable
from audit_svc.sql.care.erase import refuse_held
from audit_svc.sql.care.holds import list_holds, perform
from audit_svc.sql.care.prune import Prune, reset_mark, unfinished

C = TypeVar("C")
T = TypeVar("T")


class Erasing(Protocol):
    """An erasure, as Erase is one."""

    @property
    def has_written(self) -> bool:
        """Whether the database's log may have what was erased."""
        ...

    def step(self, connection: Any, /) -> ErasingProgress:
        """Does the next part, in the transaction that is open."""
        ...


class OnlineCare(ABC, Generic[C]):
    """Prunes, erasures and legal holds of a running service. C is a connection of the store."""

    def __init__(self, writer: GroupCommit[C]) -> None:
        self._writer = writer
        self._pruning = False
        self._erasing = False

    @abstractmethod
    def _new_prune(self, before_ms: int, by: str, *, confirm_clock: bool) -> Prune:
        """A prune that has not begun."""

    @abstractmethod
    def _new_erasure(self, wanted: Erasure) -> Erasing:
        """An erasure that has not begun."""

    @abstractmethod
    def _count_prunable(self, connection: C, before_ms: int) -> Progress:
        """What a prune would remove now."""

    @abstractmethod
    def _read(self, query: Callable[[C], T]) -> T:
        """What query answers, on a connection that only reads. It waits for the disk."""

    @abstractmethod
    def _is_left_in_log(self) -> bool:
        """Whether what was erased may still stand in a log of the database beside it, which is emptied if that can be
        done. It waits for the disk.
        """

    async def prune(self, before_ms: int, by: str, *, confirm_clock: bool = False) -> AsyncGenerator[Progress, None]:
        """Removes what began before before_ms, a whole hour, and yields its progress after each batch.

        Raises:
            ClockJumped: the clock shows a time that must be confirmed.
            AlreadyRunning: another prune is running.
            StoreClosed, DiskFull, StoreUnavailable: what was removed so far is gone, and the next prune continues.
        """
        if self._pruning:
            raise AlreadyRunning("a prune is under way already: wait for its end")
        self._pruning = True
        try:
            work = self._new_prune(before_ms, by, confirm_clock=confirm_clock)
            step: Callable[[Any], Progress] = work.step
            done = False
            loop = asyncio.get_running_loop()
            while not done:
                began = loop.time()
                progress = await asyncio.wrap_future(self._writer.run(step))
                done = progress.done
                # At most half of the writer's time, so that ingest keeps the rest.
                pause = loop.time() - began
                yield progress
                await asyncio.sleep(0 if done else pause)
        finally:
            self._pruning = False

    async def reset_mark(self, before_ms: int, by: str) -> Progress:
        """Sets the mark back to before_ms, where it is later.

        Raises:
            AlreadyRunning: a prune is running.
            StoreClosed, DiskFull, StoreUnavailable: the mark is unchanged.
        """
        if self._pruning:
            raise AlreadyRunning("a prune is under way: wait for its end")
        work: Callable[[Any], Progress] = lambda connection: reset_mark(connection, before_ms, by)  # noqa: E731
        return await asyncio.wrap_future(self._writer.run(work))

    async def count_prunable(self, before_ms: int) -> Progress:
        """What a prune would remove now."""
        return await asyncio.to_thread(self._read, lambda connection: self._count_prunable(connection, before_ms))

    async def unfinished_prune(self) -> int | None:
        """The time of an unfinished prune, in milliseconds since 1970-01-01 UTC; None if there is none."""
        work: Callable[[Any], int | None] = unfinished
        return await asyncio.to_thread(self._read, work)

    async def erase(self, wanted: Erasure) -> AsyncGenerator[ErasingProgress, None]:
        """Erases texts, and yields its progress after each batch.

        Raises:
            NotFound, AmbiguousId: there is no such row or session, or several callers have one.
            Held: a legal hold holds one of the rows. Nothing is erased, unless it was placed meanwhile.
            ClockJumped: the clock, by which rows are old enough, shows a time that must be confirmed.
            AlreadyRunning: another erasure is running.
            StoreClosed, DiskFull, StoreUnavailable: what was erased so far is, and asking again continues.
        """
        if self._erasing:
            raise AlreadyRunning("an erasure is under way already: wait for its end")
        self._erasing = True
        try:
            look: Callable[[Any], None] = lambda connection: refuse_held(connection, wanted)  # noqa: E731
            await asyncio.to_thread(self._read, look)
            work = self._new_erasure(wanted)
            loop = asyncio.get_running_loop()
            while True:
                began = loop.time()
                progress = await asyncio.wrap_future(self._writer.run(work.step))
                if progress.done:
                    break
                pause = loop.time() - began
                yield progress
                await asyncio.sleep(pause)
            left = work.has_written and await asyncio.to_thread(self._is_left_in_log)
            yield replace(progress, left_in_wal=left)
        finally:
            self._erasing = False

    async def count_erasable(self, wanted: Erasure) -> ErasingProgress:
        """What erasing would erase now. Raises NotFound, AmbiguousId."""
        work: Callable[[Any], ErasingProgress] = lambda connection: count_erasable(connection, wanted)  # noqa: E731
        return await asyncio.to_thread(self._read, work)

    async def act_on_hold(self, act: Act) -> administration_pb2.Hold:
        """Places or lifts a hold.

        Raises:
            AlreadyExists: a hold of that name is in place.
            NotFound: none is.
            InvalidRequest: as many are in place as may be.
            StoreClosed, DiskFull, StoreUnavailable: nothing is changed.
        """
        work: Callable[[Any], administration_pb2.Hold] = lambda connection: perform(connection, act)  # noqa: E731
        return await asyncio.wrap_future(self._writer.run(work))

    async def list_holds(self, *, with_lifted: bool) -> list[administration_pb2.Hold]:
        """The holds in place, or all that ever were, in the order in which they were placed."""
        work: Callable[[Any], list[administration_pb2.Hold]] = lambda connection: list_holds(  # noqa: E731
            connection, with_lifted=with_lifted
        )
        return await asyncio.to_thread(self._read, work)
