"""Calls of agents that give them no ids: what is told of one is not compared with those of other sessions."""

import tempfile
from pathlib import Path

import pytest
from onrecord.audit.v1 import audit_pb2

from intake_svc.calls import call, on_record, open_calls
from intake_svc.calls.calls import Calls
from intake_svc.hooks.event import HookEvent, read_event
from tests.intake_svc.dialects.exports import put, read, sample, spans_with
from tests.intake_svc.hooks.test_apart import Desk

BEGAN_MS = 1_795_000_000_000


def event(session: str, *, ended: bool = False) -> HookEvent:
    said = {"sessionId": session, "toolName": "bash", "toolArgs": "{}", "toolResult": {"resultType": "success"}}
    return read_event("copilot", said, BEGAN_MS, "postToolUse" if ended else "preToolUse")


def telemetry(session: str) -> audit_pb2.AuditRow:
    export = sample("copilot")
    (span,) = spans_with(export, "gen_ai.operation.name", "execute_tool")
    put(span.attributes, gen_ai__conversation__id=session, gen_ai__tool__name="bash", gen_ai__tool__call__id=None)
    span.start_time_unix_nano = BEGAN_MS * 1_000_000
    span.end_time_unix_nano = span.start_time_unix_nano
    (row,) = read(export).calls
    return row


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sessions of the calls that were compared with something by their times."""
    found: list[str] = []

    def overlap(by_hook: audit_pb2.AuditRow, row: audit_pb2.AuditRow) -> bool:
        found.append(by_hook.session_id)
        return call.overlap(by_hook, row)

    for module in (open_calls, on_record):
        monkeypatch.setattr(module, "overlap", overlap)
    return found


@pytest.mark.parametrize("moment", ["open", "on record"])
def test_telemetry_is_compared_with_the_calls_of_its_session_and_tool_alone(compared, moment):
    """Each row with each open call took half a minute for a thousand rows and four thousand calls."""
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder))
        desk.calls = Calls(desk.journal, None, 0.0, 60.0)
        for number in range(40):
            desk.calls.begin(event(f"s-{number}"), "")
            if moment == "on record":
                desk.calls.end(event(f"s-{number}", ended=True), "")
        desk.flush()
        joined = desk.calls.join([telemetry("s-7"), telemetry("s-elsewhere")])

        assert set(compared) == {"s-7"}
        assert joined.duplicates == (1 if moment == "on record" else 0)
        assert len(joined.finished) == (0 if moment == "on record" else 1)
        desk.journal.close()
