"""What the record knows of why a session's last turn has not come to a good end. No row says it as such."""

from collections.abc import Iterable

from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2


class LastTurn:
    """Watches a session's entries pass, in their order."""

    def __init__(self) -> None:
        self._id = ""
        self._has_reason = self._is_interrupted = False

    def see(self, entry: questions_pb2.Entry) -> None:
        """Takes the next entry. A shadow's is passed over: it ends no turn of the session."""
        call, request = entry.tool_call.tool_call, entry.model_request.model_request
        if call.shadow or request.shadow:
            return
        if entry.turn_id != self._id:
            self._id, self._has_reason, self._is_interrupted = entry.turn_id, False, False
        self._is_interrupted |= call.outcome == common_pb2.OUTCOME_INTERRUPTED
        self._has_reason = bool(request.error)

    def see_control(self, control: audit_pb2.ControlRow) -> None:
        """Takes an act of control where it stands among the entries: a stop is the reason of what it ended."""
        self._has_reason |= control.kind == audit_pb2.CONTROL_KIND_STOP

    def why(self, session: audit_pb2.SessionRow) -> str:
        """A sentence; empty where the turn ended well, or its last row says why it did not."""
        if session.status == common_pb2.SESSION_STATUS_RUNNING:
            return "the last turn has no end on record: it runs, or its gateway was stopped and has not started again"
        if session.status != common_pb2.SESSION_STATUS_FAILED or self._has_reason:
            return ""
        if self._is_interrupted:
            return "the gateway ended during the last turn"
        return "no row says why the last turn failed: its gateway was stopped during it, or its log has the reason"


def why_ended(
    session: audit_pb2.SessionRow, entries: Iterable[questions_pb2.Entry], controls: Iterable[audit_pb2.ControlRow]
) -> str:
    """LastTurn.why(), of entries and acts of control at hand, each the oldest first."""
    turn, left = LastTurn(), list(controls)
    for entry in entries:
        while left and left[0].at_ms <= entry.at_ms:
            turn.see_control(left.pop(0))
        turn.see(entry)
    for control in left:
        turn.see_control(control)
    return turn.why(session)
