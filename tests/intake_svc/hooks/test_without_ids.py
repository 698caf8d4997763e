"""Calls of agents that give them no ids: what is told of one is not compared with those of other sessions."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest
from onrecord.audit.v1 import audit_pb2

from intake_svc.calls import call, on_record, open_calls
from intake_svc.calls.calls import Calls
from intake_svc.dialects import Reading
from intake_svc.hooks.event import HookEvent, from_line, read_event
from recording.args_key import ArgsKey
from tests.intake_svc.dialects.exports import put, read, sample, spans_with
from tests.intake_svc.hooks.test_apart import Desk

BEGAN_MS = 1_795_000_000_000


def event(session: str, *, ended: bool = False, at_ms: int = BEGAN_MS, arguments: str = "{}") -> HookEvent:
    said = {"sessionId": session, "toolName": "bash", "toolArgs": arguments, "toolResult": {"resultType": "success"}}
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


def test_of_more_calls_than_may_be_the_oldest_is_forgotten_whatever_its_tool():
    kept = call.ByTool[str](2)
    rows = [audit_pb2.AuditRow(id=id_, tool_name=tool) for id_, tool in (("1", "bash"), ("2", "read"), ("3", "bash"))]
    assert [kept.add(row, row.id) for row in (*rows[:2], rows[0])] == ["", "", ""]
    assert kept.add(rows[2], "3") == "1", "one that is added again keeps its place"
    assert (list(kept.like(rows[0])), list(kept.like(rows[1]))) == (["3"], ["2"])
    kept.remove("2")
    assert kept.add(rows[1], "again") == ""
    assert list(kept.like(rows[1])) == ["again"]


BEGINS, ENDS, KEPT_BEGINS, KEPT_ENDS, TELEMETRY, FLUSHED = "b", "e", "kb", "ke", "t", "f"


def told(desk: Desk, step: str, at_ms: int, arguments: str = "{}") -> bool:
    """Whether a hook's event is no duplicate."""
    is_kept, ended = step.startswith("k"), step.endswith("e")
    if step == TELEMETRY:
        row = telemetry("s")
        time = f"{at_ms:012x}"
        row.id, row.created_at_ms = f"{time[:8]}-{time[8:]}{row.id[13:]}", at_ms
        desk.take(Reading(calls=(row,)))
    elif step == FLUSHED:
        desk.flush()
    else:
        one = event("s", ended=ended, at_ms=at_ms, arguments=arguments)
        one = from_line(one.to_line().encode()) if is_kept else one
        return (desk.calls.end if ended else desk.calls.begin)(one, "", is_kept=is_kept)
    return True


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


RM, MAKE = '{"command": "rm -rf build"}', '{"command": "make test"}'


@pytest.fixture
def late(tmp_path: Path) -> Iterator[Desk]:
    """Telemetry has told of a call, and its hooks are late."""
    desk = Desk(tmp_path)
    desk.calls = Calls(desk.journal, None, 0.0, 60.0)
    told(desk, TELEMETRY, BEGAN_MS)
    yield desk
    desk.journal.close()


def still_open(desk: Desk) -> list[int]:
    """When the calls began that are open, in milliseconds after that of which telemetry has told."""
    return sorted(row.created_at_ms - BEGAN_MS for row in desk.journal.calls.values())


@pytest.mark.parametrize("other_ms", [-300_000, -1_500, 30])
@pytest.mark.parametrize("arguments", [RM, MAKE])
@pytest.mark.parametrize("is_other_first", [True, False])
def test_a_beginning_that_is_late_takes_no_row_of_telemetry_of_another_call(late, other_ms, arguments, is_other_first):
    """The row is that of the latest beginning before it; the other call is open, and does not end with this one."""
    begins = [(other_ms, arguments), (-50, MAKE)]
    for at_ms, said in begins if is_other_first else reversed(begins):
        told(late, KEPT_BEGINS, BEGAN_MS + at_ms, said)
    assert not told(late, KEPT_ENDS, BEGAN_MS + 100, MAKE)
    late.flush()
    assert (len(late.stored), still_open(late)) == (1, [other_ms])
    assert not any(told(late, KEPT_BEGINS, BEGAN_MS + at_ms, said) for at_ms, said in begins)  # handed over again


def test_beginnings_that_are_late_share_out_the_rows_of_telemetry(late):
    told(late, TELEMETRY, BEGAN_MS + 1_900)
    for at_ms in (-300, -50, 1_850):
        told(late, KEPT_BEGINS, BEGAN_MS + at_ms)
    assert still_open(late) == [-300]
    assert not told(late, KEPT_ENDS, BEGAN_MS)
    assert not told(late, KEPT_ENDS, BEGAN_MS + 1_900)
    assert still_open(late) == [-300]


def test_an_end_of_other_arguments_is_not_of_the_call_that_began(late):
    assert not told(late, KEPT_BEGINS, BEGAN_MS - 50, MAKE)
    assert told(late, KEPT_ENDS, BEGAN_MS + 100, RM)
    late.flush()
    assert len(late.stored) == 2


@pytest.mark.parametrize("is_end", [True, False])
def test_arguments_whose_digests_differ_are_of_another_call(tmp_path, is_end):
    """Of telemetry that has them."""
    key = ArgsKey("a-key", bytes(32))
    desk = Desk(tmp_path)
    desk.calls = Calls(desk.journal, key, 0.0, 60.0)
    row = telemetry("s")
    row.args_digest.key_id, row.args_digest.hmac_sha256 = key.id, key.digest(MAKE)
    desk.take(Reading(calls=(row,)))
    for arguments in (RM, MAKE):
        one = event("s", ended=is_end, at_ms=BEGAN_MS - 50, arguments=arguments)
        one = one._replace(id=f"{crc32(arguments.encode()):016x}")
        assert (desk.calls.end if is_end else desk.calls.begin)(one, "", is_kept=True) == (arguments == RM)
    desk.journal.close()


def test_a_call_that_was_taken_for_another_is_on_the_disk_before_its_row_is_given_away(late, monkeypatch):
    assert not told(late, KEPT_BEGINS, BEGAN_MS - 1_500, RM)
    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", lambda _: Path("/nonexistent").stat())
        with pytest.raises(OSError, match="No such file"):
            told(late, KEPT_BEGINS, BEGAN_MS - 50, MAKE)
    assert not told(late, KEPT_BEGINS, BEGAN_MS - 50, MAKE)
    assert still_open(late) == [-1_500]
