"""Care of a running ledger: onrecord.audit.v1.AdministrationService, and the prunes that retention makes."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import asdict
from typing import BinaryIO

import structlog
from onrecord.audit.v1 import administration_pb2, administration_pb2_grpc

from audit_svc.errors import AuditError
from audit_svc.ledger.erasing import ErasingProgress, Erasure, erasure_of
from audit_svc.ledger.erasing import response_of as erased_response
from audit_svc.ledger.holds import lifting_of, placing_of
from audit_svc.ledger.protocol import Ledger, ReadableLedger
from audit_svc.ledger.pruning import Progress, response_of, whole_hour
from audit_svc.ledger.steps import DAY_MS, HOUR_MS
from audit_svc.query_log import QueryLog
from recording.upkeep import attempt
from service_kit.access.callers import caller_name
from service_kit.errors import Context

log = structlog.get_logger(__name__)

PART_BYTES = 2**20
STANDBY_SECONDS = 1.0
"""How often a replica that does not write looks whether it does now."""
"""The largest part of a backup."""


class QueriesServicer(administration_pb2_grpc.AdministrationServiceServicer):
    """ListQueries of onrecord.audit.v1.AdministrationService, for which a ledger that is only read is enough."""

    def __init__(self, ledger: ReadableLedger, query_log: QueryLog) -> None:
        self._queries = ledger.list_queries
        self._query_log = query_log

    async def ListQueries(  # noqa: N802 - named by the proto
        self, request: administration_pb2.ListQueriesRequest, context: Context
    ) -> administration_pb2.ListQueriesResponse:
        """One page of the log of queries."""
        rows, token = await self._query_log.page(self._queries, request, (int, int))
        return administration_pb2.ListQueriesResponse(queries=rows, next_page_token=token)


class AdministrationServicer(QueriesServicer):
    """The RPCs of onrecord.audit.v1.AdministrationService."""

    def __init__(self, ledger: Ledger, query_log: QueryLog) -> None:
        super().__init__(ledger, query_log)
        self._ledger = ledger

    async def Prune(  # noqa: N802 - named by the proto
        self, request: administration_pb2.PruneRequest, context: Context
    ) -> AsyncIterator[administration_pb2.PruneResponse]:
        """Removes what began before a time. When the client leaves, it stops after the current batch."""
        before_ms = whole_hour(request.created_before_ms, time.time_ns() // 1_000_000)
        if request.dry_run:
            yield response_of(await self._ledger.count_prunable(before_ms))
            return
        caller = caller_name()
        if request.reset_mark:
            progress = await self._ledger.reset_mark(before_ms, caller)
            log.warning("prune.mark_reset", by=caller, pruned_before=progress.pruned_before)
            yield response_of(progress)
            return
        pruning = _prune(self._ledger, before_ms, caller, confirm_clock=request.confirm_clock)
        async with contextlib.aclosing(pruning) as progresses:
            async for progress in progresses:
                yield response_of(progress)

    async def Erase(  # noqa: N802 - named by the proto
        self, request: administration_pb2.EraseRequest, context: Context
    ) -> AsyncIterator[administration_pb2.EraseResponse]:
        """Erases the texts of rows. When the client leaves, it stops after the current batch."""
        wanted = erasure_of(request, caller_name())
        if request.dry_run:
            yield erased_response(await self._ledger.count_erasable(wanted))
            return
        async with contextlib.aclosing(_erase(self._ledger, wanted)) as progresses:
            async for progress in progresses:
                yield erased_response(progress)

    async def PlaceHold(  # noqa: N802 - named by the proto
        self, request: administration_pb2.PlaceHoldRequest, context: Context
    ) -> administration_pb2.PlaceHoldResponse:
        """Keeps rows from being pruned and erased."""
        hold = await self._ledger.act_on_hold(placing_of(request, caller_name()))
        log.info("hold.placed", by=hold.placed_by, hold=hold.name)
        return administration_pb2.PlaceHoldResponse(hold=hold)

    async def LiftHold(  # noqa: N802 - named by the proto
        self, request: administration_pb2.LiftHoldRequest, context: Context
    ) -> administration_pb2.LiftHoldResponse:
        """Ends that."""
        hold = await self._ledger.act_on_hold(lifting_of(request, caller_name()))
        log.info("hold.lifted", by=hold.lifted_by, hold=hold.name)
        return administration_pb2.LiftHoldResponse(hold=hold)

    async def ListHolds(  # noqa: N802 - named by the proto
        self, request: administration_pb2.ListHoldsRequest, context: Context
    ) -> administration_pb2.ListHoldsResponse:
        """The holds in place, or all."""
        holds = await self._ledger.list_holds(with_lifted=request.with_lifted)
        return administration_pb2.ListHoldsResponse(holds=holds)

    async def Backup(  # noqa: N802 - named by the proto
        self, request: administration_pb2.BackupRequest, context: Context
    ) -> AsyncIterator[administration_pb2.BackupResponse]:
        """Makes a copy, checks it, and sends it."""
        with self._query_log.logged(request) as logged:
            copy, logged.rows = await self._ledger.back_up()
            log.info("backup.made", caller=caller_name())
            async with contextlib.aclosing(_parts(copy)) as parts:
                async for part in parts:
                    yield part


async def _parts(copy: BinaryIO) -> AsyncGenerator[administration_pb2.BackupResponse, None]:
    """A backup in parts, the first with its size, the last with its SHA-256. Closes it."""
    with copy:
        digest = hashlib.sha256()
        size = copy.seek(0, 2)
        copy.seek(0)
        sent = 0
        while sent < size:
            part = await asyncio.to_thread(copy.read, PART_BYTES)
            digest.update(part)
            yield administration_pb2.BackupResponse(
                data=part,
                total_bytes=0 if sent else size,
                sha256=digest.hexdigest() if sent + len(part) == size else "",
            )
            sent += len(part)


async def keep_retention(
    ledger: Ledger,
    retention_days: int | None,
    args_days: int | None = None,
    writes: Callable[[], bool] = lambda: True,
) -> None:
    """Once an hour: finishes a prune or an erasure that was interrupted, removes what is older than retention_days, and
    erases the texts of what is older than args_days.

    writes: whether this replica is the one that does it.
    """
    while True:
        if not writes():
            await asyncio.sleep(STANDBY_SECONDS)
            continue
        now_ms = time.time_ns() // 1_000_000
        with attempt("retention", event="prune.failed", foreseen=(AuditError,)):
            before_ms = await ledger.unfinished_prune() or 0
            if retention_days is not None:
                before_ms = max(before_ms, whole_hour(now_ms - retention_days * DAY_MS, now_ms))
            if before_ms:
                async for _ in _prune(ledger, before_ms, "retention"):
                    pass
        with attempt("retention of texts", event="erase.failed", foreseen=(AuditError,)):
            wanted = Erasure("retention", "")
            if args_days is not None:
                # by whole days, since the index of texts is merged as a whole after each
                before_ms = (now_ms - args_days * DAY_MS) // DAY_MS * DAY_MS
                wanted = Erasure("retention", f"older than {args_days} days", before_ms=before_ms)
            async for _ in _erase(ledger, wanted):
                pass
        await asyncio.sleep((HOUR_MS - now_ms % HOUR_MS) / 1000 + 1)


async def _prune(
    ledger: Ledger, before_ms: int, by: str, *, confirm_clock: bool = False
) -> AsyncGenerator[Progress, None]:
    progress = None
    async with contextlib.aclosing(ledger.prune(before_ms, by, confirm_clock=confirm_clock)) as progresses:
        async for progress in progresses:
            yield progress
    if progress is not None:
        counts = {"held": progress.held, **asdict(progress.removed)}
        log.info("prune.finished", by=by, pruned_before=progress.pruned_before, **counts)


async def _erase(ledger: Ledger, wanted: Erasure) -> AsyncGenerator[ErasingProgress, None]:
    progress = None
    async with contextlib.aclosing(ledger.erase(wanted)) as progresses:
        async for progress in progresses:
            yield progress
    if progress is not None and (progress.erased.rows or progress.left_in_wal):
        log.info("erase.finished", by=wanted.by, left_in_wal=progress.left_in_wal, **asdict(progress.erased))
