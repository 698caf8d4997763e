"""Calls of agents that give them no ids: what is told of one is not compared with those of other sessions."""

import tempfile
from pathlib import Path
from zlib import crc32

import pytest
from onrecord.audit.v1 import audit_pb2

from intake_svc.calls import call, on_record, open_calls
from intake_svc.calls.calls import Calls
from intake_svc.dialects import Reading
from intake_svc.hooks.event import HookEvent, from_line, read_event
from tests.intake_svc.dialects.exports import put, read, sample, spans_with
from tests.intake_svc.hooks.test_apart import Desk

BEGAN_MS = 1_795_000_000_000


def event(session: str, *, ended: bool = False, at_ms: int = BEGAN_MS) -> HookEvent:
    said = {"sessionId": session, "toolName": "bash", "toolArgs": "{}", "toolResult": {"resultType": "success"}}
    name = "postToolUse" if ended else "preToolUse"
    return read_event("copilot", said, at_ms, name, id_=f"{crc32(f'{session} {at_ms} {name}'.encode()):016x}")


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


BEGINS, ENDS, KEPT_BEGINS, KEPT_ENDS, TELEMETRY, FLUSHED = "b", "e", "kb", "ke", "t", "f"


def told(desk: Desk, step: str, at_ms: int) -> None:
    is_kept, ended = step.startswith("k"), step.endswith("e")
    if step == TELEMETRY:
        row = telemetry("s")
        row.id, row.created_at_ms = f"{at_ms:012x}"[:8] + row.id[8:], at_ms
        desk.take(Reading(calls=(row,)))
    elif step == FLUSHED:
        desk.flush()
    else:
        one = event("s", ended=ended, at_ms=at_ms)
        one = from_line(one.to_line().encode()) if is_kept else one
        (desk.calls.end if ended else desk.calls.begin)(one, "", is_kept=is_kept)


@pytest.mark.parametrize(
    "steps",
    [
        (BEGINS, ENDS, TELEMETRY),
        (BEGINS, ENDS, FLUSHED, TELEMETRY),
        (BEGINS, TELEMETRY, ENDS),
        (BEGINS, TELEMETRY, KEPT_ENDS),
        (TELEMETRY, KEPT_BEGINS, KEPT_ENDS),
        (TELEMETRY, KEPT_BEGINS, KEPT_ENDS, KEPT_BEGINS, KEPT_ENDS),  # handed over again
        (TELEMETRY, KEPT_ENDS, KEPT_ENDS),
    ],
    ids="-".join,
)
@pytest.mark.parametrize("calls", [1, 3])
def test_a_call_without_an_id_is_one_row_in_whatever_order_it_is_told(tmp_path, steps, calls):
    """As where a door was away: telemetry is sent again by itself, and hooks hand over what they kept."""
    desk = Desk(tmp_path)
    desk.calls = Calls(desk.journal, None, 0.0, 60.0)
    for step in steps:
        for number in range(calls):
            told(desk, step, BEGAN_MS + number * 60_000)
    desk.flush()
    assert (len(desk.stored), desk.calls.waiting()) == (calls, 0)
    desk.journal.close()


def test_a_call_that_begins_behind_the_telemetry_of_another_is_a_call(tmp_path):
    desk = Desk(tmp_path)
    desk.calls = Calls(desk.journal, None, 0.0, 60.0)
    for step, at_ms in ((TELEMETRY, BEGAN_MS), (BEGINS, BEGAN_MS + 500), (ENDS, BEGAN_MS + 900)):
        told(desk, step, at_ms)
    for step, at_ms in ((KEPT_BEGINS, BEGAN_MS + 90_000), (KEPT_ENDS, BEGAN_MS + 90_100)):
        told(desk, step, at_ms)
    desk.flush()
    assert len(desk.stored) == 3
    desk.journal.close()
