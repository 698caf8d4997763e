"""What the record knows of why a session's last turn has not come to a good end. No row says it as such."""

from collections.abc import Iterable

from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.terminal.client import Client, all_rows
from audit_svc.terminal.stopped import controls_of

NEWEST = 20
"""So many of the newest entries of a kind are looked at."""


class LastTurn:
    """Watches a session's entries pass, in their order."""

    def __init__(self) -> None:
        self._id = ""
        self._error, self._is_interrupted = "", False
        self._stop: audit_pb2.ControlRow | None = None
        """The last stop since the last entry."""

    def see(self, entry: questions_pb2.Entry) -> None:
        """Takes the next entry. A shadow's is passed over: it ends no turn of the session."""
        call, request = entry.tool_call.tool_call, entry.model_request.model_request
        if call.shadow or request.shadow:
            return
        if entry.turn_id != self._id:
            self._id, self._is_interrupted = entry.turn_id, False
        self._is_interrupted |= _was_cut(call)
        self._error, self._stop = request.error, None

    def see_control(self, control: audit_pb2.ControlRow) -> None:
        """Takes an act of control where it stands among the entries: a stop is the reason of what it ended."""
        if control.kind == audit_pb2.CONTROL_KIND_STOP:
            self._stop = control

    def why(self, session: audit_pb2.SessionRow) -> str:
        """A sentence; empty where the turn ended well, or its last row says why it did not."""
        if session.status == common_pb2.SESSION_STATUS_RUNNING:
            return "the last turn has no end on record: it runs, or its gateway was stopped and has not started again"
        if session.status == common_pb2.SESSION_STATUS_CANCELLED and self._is_interrupted:
            return "the gateway was shut down during the last turn, which cancelled it"
        if session.status != common_pb2.SESSION_STATUS_FAILED or self._error or self._stop:
            return ""
        if self._is_interrupted:
            return "the gateway ended during the last turn, before it could record the end"
        return "no row says why the last turn failed: its gateway was stopped during it, or its log has the reason"

    def reason(self, session: audit_pb2.SessionRow) -> str:
        """As why(), also where a row says it."""
        if self._stop and not self._error:
            return f"{self._stop.scope} was stopped (stop {self._stop.stop_id})"
        return self._error or self.why(session)


def why_ended(
    session: audit_pb2.SessionRow, entries: Iterable[questions_pb2.Entry], controls: Iterable[audit_pb2.ControlRow]
) -> str:
    """LastTurn.why(), of entries and acts of control at hand, each the oldest first."""
    return _seen(entries, controls).why(session)


def reason_of(client: Client, record: questions_pb2.SessionRecord) -> str:
    """LastTurn.reason(), of the newest entries of a session on record."""
    session = record.session
    of_calls = questions_pb2.ListToolCallsRequest(filter=questions_pb2.ToolCallFilter(session_id=session.id))
    of_requests = questions_pb2.ListModelRequestsRequest(filter=questions_pb2.ModelRequestFilter(session_id=session.id))
    entries = [
        questions_pb2.Entry(at_ms=call.tool_call.created_at_ms, turn_id=call.tool_call.turn_id, tool_call=call)
        for call in all_rows(client, "ListToolCalls", of_calls, "tool_calls", NEWEST)
    ] + [
        questions_pb2.Entry(at_ms=row.model_request.created_at_ms, turn_id=row.model_request.turn_id, model_request=row)
        for row in all_rows(client, "ListModelRequests", of_requests, "model_requests", NEWEST)
    ]
    controls = [each.control for each in controls_of(client, record)]
    return _seen(sorted(entries, key=lambda entry: entry.at_ms), controls).reason(session)


def _was_cut(call: audit_pb2.AuditRow) -> bool:
    """Whether the end of its gateway ended a call."""
    if call.outcome != common_pb2.OUTCOME_CANCELLED:
        return call.outcome == common_pb2.OUTCOME_INTERRUPTED
    from recording.calls import GATEWAY_ENDED  # other commands need not wait for it

    return call.error == GATEWAY_ENDED


def _seen(entries: Iterable[questions_pb2.Entry], controls: Iterable[audit_pb2.ControlRow]) -> LastTurn:
    turn, left = LastTurn(), list(controls)
    for entry in entries:
        while left and left[0].at_ms <= entry.at_ms:
            turn.see_control(left.pop(0))
        turn.see(entry)
    for control in left:
        turn.see_control(control)
    return turn
