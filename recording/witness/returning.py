"""Sends kept rows again, to a ledger that may have lost them: what it lacks is stored, the rest are duplicates.

They have the numbers that they had, so that the ledger's holes close, and what is gone for good stays as a hole.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from onrecord.audit.v1 import audit_pb2

from recording.delivery.connection import Connection, Target, refuses_batch, retry_after_seconds
from recording.delivery.verdicts import Verdict, isolate
from recording.kept.rows import read_batches
from recording.spool import Batch
from recording.spool.records import kind_of_row

MAX_ROWS = 500
MAX_BYTES = 2**20

_TRIES = 6
_PAUSE_SECONDS = 0.5


@dataclass(slots=True)
class Returned:
    """What came of it."""

    rows: int = 0
    stored: int = 0
    """Rows that the ledger did not have."""
    refused: int = 0
    """Rows that it does not take, such as those that it has pruned."""


async def send_again(
    root: Path, target: Target, link: Connection, ack_seconds: float, on_missed: Callable[[int], None]
) -> Returned:
    """Sends all that is acked and still there. on_missed: called with how many rows of a batch were not there.

    States of sessions do not count for that: under another name than before they are another session's.

    Raises:
        grpc.aio.AioRpcError: the ledger does not take them now.
        OSError: the disk cannot be read.
    """
    done = Returned()
    batches = read_batches(root, MAX_ROWS, MAX_BYTES)
    while (found := await asyncio.to_thread(next, batches, None)) is not None:
        spool_id, batch = found
        verdict = await send_batch(batch, target.producer_id(spool_id), link, ack_seconds)
        done.rows += len(batch.payloads)
        done.stored += verdict.stored
        done.refused += len(verdict.rejected) + len(verdict.refused)
        states = sum(kind_of_row(payload) == audit_pb2.ROW_KIND_SESSION for payload in batch.payloads)
        if verdict.stored > states:
            on_missed(verdict.stored - states)
    return done


async def send_batch(batch: Batch, producer_id: str, link: Connection, ack_seconds: float) -> Verdict:
    """Sends one batch; a passing failure is tried again a few times.

    Raises:
        grpc.aio.AioRpcError: the ledger does not take it now.
    """
    for tries in range(1, _TRIES + 1):
        try:
            return await isolate(batch, producer_id, link, ack_seconds)
        except grpc.aio.AioRpcError as error:
            if tries == _TRIES or refuses_batch(error):
                raise
            await asyncio.sleep(retry_after_seconds(error) + _PAUSE_SECONDS * tries)
    raise AssertionError("the last try raises")
