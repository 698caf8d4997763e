"""Erasing: whose texts are erased and why, and the progress of that."""

from dataclasses import dataclass, field

from onrecord.audit.v1 import administration_pb2

from audit_svc.errors import InvalidRequest
from audit_svc.ledger.query import MAX_LABELS
from recording.controls import has_control

MAX_REASON = 256
"""Characters."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """Rows whose texts are to be erased: one, those of a session or of sessions with labels, or those of a time. With
    none of these an erasure that was interrupted is finished.
    """

    by: str
    """Who asked for it."""
    reason: str
    row_id: str = ""
    session_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    recorded_by: str | None = None
    """Whose rows; of a row or a session, None where the id is of one caller alone."""
    before_ms: int = 0
    """For their age: what legal holds hold is passed over, and is a refusal otherwise."""


@dataclass(slots=True)
class ErasedCounts:
    """Rows that had texts."""

    tool_calls: int = 0
    model_requests: int = 0
    controls: int = 0

    @property
    def rows(self) -> int:
        """Of all kinds."""
        return self.tool_calls + self.model_requests + self.controls


@dataclass(frozen=True, slots=True)
class ErasingProgress:
    """The progress of erasing."""

    erased: ErasedCounts = field(default_factory=ErasedCounts)
    done: bool = False
    left_in_wal: bool = False
    """Whether the texts may still stand in a log of the database beside it."""


def erasure_of(request: administration_pb2.EraseRequest, by: str) -> Erasure:
    """What a request asks for.

    Raises:
        InvalidRequest: it names no rows, or gives no reason.
    """
    target = request.WhichOneof("target")
    if target is None:
        raise InvalidRequest("target is not set: name a row, a session, or labels of sessions", "target")
    reason = checked_reason(request.reason)
    if target == "labels":
        if not request.labels.labels:
            raise InvalidRequest("labels.labels is empty, and would be all sessions: name a label", "labels.labels")
        if len(request.labels.labels) > MAX_LABELS:
            raise InvalidRequest(f"labels.labels has more than {MAX_LABELS} entries", "labels.labels")
        name = request.labels.recorded_by if request.labels.HasField("recorded_by") else None
        return Erasure(by, reason, labels=tuple(sorted(request.labels.labels.items())), recorded_by=name)
    key = request.row if target == "row" else request.session
    if not key.id:
        raise InvalidRequest(f"{target}.id is empty", f"{target}.id")
    name = key.recorded_by if key.HasField("recorded_by") else None
    if target == "row":
        return Erasure(by, reason, row_id=key.id, recorded_by=name)
    return Erasure(by, reason, session_id=key.id, recorded_by=name)


def checked_reason(reason: str) -> str:
    """A reason that goes on the record.

    Raises:
        InvalidRequest: it is empty, longer than MAX_REASON, or has a control character.
    """
    if not reason.strip():
        raise InvalidRequest("reason is empty: say why, it stands on the record", "reason")
    if len(reason) > MAX_REASON:
        raise InvalidRequest(f"reason is longer than {MAX_REASON} characters", "reason")
    if has_control(reason):
        raise InvalidRequest("reason has a control character", "reason")
    return reason


def response_of(progress: ErasingProgress) -> administration_pb2.EraseResponse:
    """Progress as the wire has it."""
    return administration_pb2.EraseResponse(
        tool_calls=progress.erased.tool_calls,
        model_requests=progress.erased.model_requests,
        controls=progress.erased.controls,
        done=progress.done,
        left_in_wal=progress.left_in_wal,
    )
