"""The audit service's verdict on single rows, and how to find the rows for which it refuses a whole batch."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import grpc
from onrecord.audit.v1 import audit_pb2

from recording.delivery.connection import describe, refuses_batch
from recording.delivery.dead_letters import DeadLetter
from recording.spool import Batch
from recording.spool.records import decode_row

_MAX_ID_CHARACTERS = 128


@dataclass(slots=True)
class Verdict:
    """The fate of the rows of a batch. Rows in neither list are in the ledger."""

    stored: int = 0
    duplicates: int = 0
    rejected: list[DeadLetter] = field(default_factory=list)
    """Rows that the service has rejected for good."""
    refused: list[DeadLetter] = field(default_factory=list)
    """Rows for which, sent alone, the service ended the call."""

    def add(self, batch: Batch, response: audit_pb2.RecordResponse) -> None:
        """Takes the response to batch."""
        self.stored += response.stored
        self.duplicates += response.duplicates
        if response.rejections:
            self.rejected.extend(_rejected(batch, response))


async def isolate(batch: Batch, send: Callable[[Batch], Awaitable[audit_pb2.RecordResponse]], verdict: Verdict) -> None:
    """Sends a batch in halves, recursively, until each refused row is alone.

    Raises:
        grpc.aio.AioRpcError: a part failed for another reason than its rows.
    """
    try:
        response = await send(batch)
    except grpc.aio.AioRpcError as error:
        if not refuses_batch(error):
            raise
        if len(batch.payloads) > 1:
            for half in batch.split():
                await isolate(half, send, verdict)
            return
        verdict.refused.append(DeadLetter(batch.numbers[0], batch.payloads[0], error.code().name, describe(error)))
    else:
        verdict.add(batch, response)


def _rejected(batch: Batch, response: audit_pb2.RecordResponse) -> Iterator[DeadLetter]:
    """The rejected rows. If several share an id, all of them: the response does not say which it was."""
    rejections = {rejection.id: rejection for rejection in response.rejections}
    for number, payload in zip(batch.numbers, batch.payloads, strict=True):
        rejection = rejections.get(decode_row(payload).id[:_MAX_ID_CHARACTERS])
        if rejection is not None:
            code = audit_pb2.RejectionCode.Name(rejection.code).removeprefix("REJECTION_CODE_")
            yield DeadLetter(number, payload, code, rejection.message)
