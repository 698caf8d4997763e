"""The numbers that agents give to their own events, as the ledger takes them: it tells which never came."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from onrecord.audit.v1 import audit_pb2

from intake_svc.dialects import SequenceNumber
from service_kit.bounds import MAX_SUM


def numbers_of(sequence: Iterable[SequenceNumber]) -> Iterator[audit_pb2.SessionNumbers]:
    """The ranges that the numbers make up, those of each session's stream in their order."""
    for (session_id, stream), found in groupby(sorted(set(sequence)), key=lambda one: one[:2]):
        run: audit_pb2.SessionNumbers | None = None
        for number in (one.number for one in found if 0 <= one.number <= MAX_SUM):
            if run is not None and number == run.last + 1:
                run.last = number
                continue
            if run is not None:
                yield run
            run = audit_pb2.SessionNumbers(session_id=session_id, stream=stream, first=number, last=number)
        if run is not None:
            yield run
