"""The audit service's verdict on single rows, and how to find the rows for which it refuses a whole batch."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc
from onrecord.audit.v1 import audit_pb2

from recording.delivery.connection import (
    Connection,
    ProtocolBroken,
    describe,
    encode_request,
    range_of,
    refuses_batch,
)
from recording.delivery.dead_letters import DeadLetter
from recording.spool import Batch
from recording.spool.records import kind_of_row


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
        """Takes the response to batch.

        Raises:
            ProtocolBroken: it rejects a row that is not in the batch.
        """
        self.stored += response.stored
        self.duplicates += response.duplicates
        if response.rejections:
            self.rejected.extend(_rejected(batch, response))


async def isolate(batch: Batch, producer_id: str, link: Connection, ack_seconds: float) -> Verdict:
    """Sends a batch, and what is refused of it in halves, until each refused row is alone.

    Raises:
        grpc.aio.AioRpcError: a part was not stored for another reason than its rows.
        ProtocolBroken: see Verdict.add.
    """
    verdict, parts = Verdict(), [batch]
    while parts:
        part = parts.pop()
        try:
            response = await link.record_batch(encode_request(range_of(producer_id, part), part), ack_seconds)
        except grpc.aio.AioRpcError as error:
            if not refuses_batch(error):
                raise
            if len(part.payloads) > 1:
                parts += reversed(part.split())
                continue
            verdict.refused.append(
                DeadLetter(part.numbers[0], part.payloads[0], error.code().name, describe(error), part.row_version)
            )
        else:
            verdict.add(part, response)
    return verdict


def _rejected(batch: Batch, response: audit_pb2.RecordResponse) -> Iterator[DeadLetter]:
    """The rejected rows: each is named by its list and its place in that."""
    rejections = {(int(rejection.kind), rejection.index): rejection for rejection in response.rejections}
    passed: Counter[int] = Counter()
    for number, payload in zip(batch.numbers, batch.payloads, strict=True):
        kind = kind_of_row(payload)
        rejection = rejections.pop((kind, passed[kind]), None)
        passed[kind] += 1
        if rejection is not None:
            yield DeadLetter(number, payload, _code_name(rejection.code), rejection.message, batch.row_version)
    if rejections:
        raise ProtocolBroken("the audit service rejected rows that were not in the batch")


def _code_name(code: audit_pb2.RejectionCode.ValueType) -> str:
    try:
        return audit_pb2.RejectionCode.Name(code).removeprefix("REJECTION_CODE_")
    except ValueError:  # of a newer service
        return str(code)
