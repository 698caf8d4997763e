"""What `show` says of a last turn that has not come to a good end."""

from typing import Any

import pytest
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.terminal.last_turn import LastTurn, why_ended
from audit_svc.terminal.timeline import Timeline
from recording.calls import GATEWAY_ENDED
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, session_row

INTERRUPTED = {"outcome": common_pb2.OUTCOME_INTERRUPTED}
CANCELLED = {"outcome": common_pb2.OUTCOME_CANCELLED, "error": "cancelled"}
RUNS, UNTOLD = "has no end on record", "no row says why"
KILLED = "the gateway ended during the last turn, before it could record the end"


def call(turn: str, **fields: Any) -> questions_pb2.Entry:
    row = questions_pb2.ToolCallRecord(tool_call=audit_row(turn_id=turn, **fields))
    return questions_pb2.Entry(at_ms=NOW_MS, turn_id=turn, tool_call=row)


def request(turn: str, **fields: Any) -> questions_pb2.Entry:
    row = questions_pb2.ModelRequestRecord(model_request=cost_row(turn_id=turn, **fields))
    return questions_pb2.Entry(at_ms=NOW_MS, turn_id=turn, model_request=row)


def said(status: str, *entries: questions_pb2.Entry, stop_at: int | None = None) -> str:
    session = session_row(status=common_pb2.SessionStatus.Value(f"SESSION_STATUS_{status}"), updated_at_ms=NOW_MS + 10)
    stop = audit_pb2.ControlRow(kind=audit_pb2.CONTROL_KIND_STOP, scope="everything", at_ms=stop_at or 0)
    controls = [] if stop_at is None else [questions_pb2.ControlRecord(control=stop)]
    timeline = Timeline(questions_pb2.SessionRecord(session=session), controls)
    list(timeline.lines(entries))
    text = "".join(map(str, timeline.end()))
    assert why_ended(session, entries, [stop] if stop_at else []) in text
    return text


@pytest.mark.parametrize(
    ("status", "entries", "why"),
    [
        ("IDLE", [request("1"), call("1", **INTERRUPTED), request("2")], ""),
        ("CANCELLED", [request("1")], ""),
        ("CANCELLED", [request("1"), call("1", **CANCELLED)], ""),
        (
            "CANCELLED",
            [request("1"), call("1", **CANCELLED | {"error": GATEWAY_ENDED})],
            "the gateway was shut down during the last turn",
        ),
        ("FAILED", [request("1"), request("1", error="engine_unavailable")], ""),
        ("FAILED", [request("1"), call("1", **INTERRUPTED)], KILLED),
        ("FAILED", [request("1", error="engine_unavailable"), request("2"), call("2", **INTERRUPTED)], KILLED),
        ("FAILED", [request("1"), call("1", error="it failed")], UNTOLD),
        ("FAILED", [request("1"), request("shadow", error="engine_unavailable", shadow=True)], UNTOLD),
        ("FAILED", [call("1", **INTERRUPTED), request("2")], UNTOLD),
        ("FAILED", [], UNTOLD),
        ("RUNNING", [request("1")], RUNS),
    ],
)
def test_what_no_row_says_is_inferred_from_the_last_ones(status: str, entries: list[questions_pb2.Entry], why: str):
    text = said(status, *entries)
    assert why in text if why else text == ""


def test_where_a_row_says_why_that_is_the_reason_in_a_list():
    failed = session_row(status=common_pb2.SESSION_STATUS_FAILED)
    turn = LastTurn()
    turn.see(request("1", error="engine_unavailable"))
    assert turn.reason(failed) == "engine_unavailable"
    turn.see(request("2"))
    assert UNTOLD in turn.reason(failed)
    turn.see_control(audit_pb2.ControlRow(kind=audit_pb2.CONTROL_KIND_STOP, scope="engine=ollama", stop_id="s-1"))
    assert turn.reason(failed) == "engine=ollama was stopped (stop s-1)"


def test_a_stop_that_ended_the_turn_is_its_reason():
    assert UNTOLD not in said("FAILED", request("1"), stop_at=NOW_MS + 5)
    assert UNTOLD in said("FAILED", request("1"), stop_at=NOW_MS - 5)
