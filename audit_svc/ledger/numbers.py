"""The numbers of records that a batch covers, of its producer and of streams that agents number themselves."""

from typing import NamedTuple

from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import InvalidRequest
from recording.controls import has_control

_STREAM = "session/"


class Numbers(NamedTuple):
    """The records of a producer that a batch covers."""

    producer_id: str
    first: int
    last: int


def read_numbers(covered: audit_pb2.SequenceRange) -> Numbers:
    """What a producer says that a batch covers.

    Raises:
        InvalidRequest: no ledger can keep such numbers.
    """
    if not 1 <= len(covered.producer_id) <= 128:
        raise InvalidRequest("range.producer_id does not have 1 to 128 characters", "range.producer_id")
    if has_control(covered.producer_id):
        raise InvalidRequest("range.producer_id has a control character", "range.producer_id")
    if covered.first < 1:
        raise InvalidRequest("range.first is below 1, where numbers begin", "range.first")
    if covered.last < covered.first:
        raise InvalidRequest("range.last is below range.first", "range.last")
    return Numbers(covered.producer_id, covered.first, covered.last)


def stream_id(session_id: str, stream: str) -> str:
    """By what the ledger knows a stream of a session's own numbers among its producers."""
    return f"{_STREAM}{session_id}/{stream}"


def stream_of(producer_id: str) -> tuple[str, str] | None:
    """The session and the stream that stream_id() made an id of; None of any other producer's."""
    session_id, slash, stream = producer_id.removeprefix(_STREAM).rpartition("/")
    return (session_id, stream) if producer_id.startswith(_STREAM) and slash else None


def read_session_numbers(numbers: audit_pb2.SessionNumbers) -> Numbers:
    """What an agent says of its own numbers.

    Raises:
        InvalidRequest: no ledger can keep such numbers.
    """
    for name, limit in (("session_id", 128), ("stream", 64)):
        text = getattr(numbers, name)
        if not 1 <= len(text) <= limit or has_control(text):
            raise InvalidRequest(
                f"session_numbers.{name} does not have 1 to {limit} characters without control characters",
                f"session_numbers.{name}",
            )
    if "/" in numbers.stream:
        raise InvalidRequest("session_numbers.stream has a slash", "session_numbers.stream")
    if not 0 <= numbers.first <= numbers.last:
        raise InvalidRequest("session_numbers.first is below 0 or above last", "session_numbers.first")
    return Numbers(stream_id(numbers.session_id, numbers.stream), numbers.first, numbers.last)
