"""`gateway-svc dead-letters`: what the ledger refused is shown, sent again or dropped, and never silently."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from onrecord.audit.v1 import audit_pb2

import intake_svc.__main__
from gateway_svc.__main__ import program
from recording.delivery.dead_letters import DeadLetter, DeadLetters
from recording.record import open_record
from recording.spool import Folders, SpoolOptions
from recording.spool.records import encode_row
from tests.recording.fake_audit import Context, FakeAudit, serving
from tests.recording.samples import tool_call
from tests.support.command_line import Result, invoke

COST = audit_pb2.CostRow(id="cost-1", model="m", input_tokens=7, created_at_ms=1)
SESSION = audit_pb2.SessionRow(id="session-1", model="\x1b[31mm", labels={"team": "research"}, revision=3)


def refuse(state_dir: Path, producer_id: str = "p-1") -> DeadLetters:
    """A state directory with three dead letters of a producer, one of them twice."""
    root = state_dir / "spool"
    root.mkdir(parents=True, exist_ok=True)
    letters = DeadLetters(root)
    old = DeadLetter(1, encode_row(tool_call(1)), "TOO_OLD", "it is older than what was pruned")
    letters.write(producer_id, [old, DeadLetter(2, encode_row(COST), "INVALID", "no")])
    letters.write(producer_id, [old, DeadLetter(5, encode_row(SESSION), "INVALID", "no")])
    return letters


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GATEWAY_STATE_DIR", str(tmp_path))

    def call(*arguments: str, code: int = 0) -> Result:
        result = invoke(program, ["dead-letters", *arguments])
        assert result.exit_code == code, result.output
        return result

    return call


def test_the_door_for_other_agents_has_the_same_commands(tmp_path, monkeypatch):
    refuse(tmp_path)
    monkeypatch.setenv("INTAKE_STATE_DIR", str(tmp_path))
    shown = invoke(intake_svc.__main__.program, ["dead-letters", "list", "--json"])
    assert (shown.exit_code, shown.output.count("TOO_OLD")) == (0, 1)
    monkeypatch.setenv("INTAKE_STATE_DIR", str(tmp_path / "other"))
    nothing = invoke(intake_svc.__main__.program, ["dead-letters", "list"])
    assert (nothing.exit_code, "set INTAKE_STATE_DIR" in nothing.output) == (1, True)


def waiting(state_dir: Path) -> list[Any]:
    """What a gateway that adopts the free folders would send."""
    rows = []
    for spool in Folders(state_dir / "spool", SpoolOptions()).adopt(9):
        while batch := spool.read(500, 2**20):
            request = audit_pb2.RecordRequest.FromString(b"".join(batch.payloads))
            rows += [*request.tool_calls, *request.model_requests, *request.sessions]
        spool.close()
    return rows


def test_list_and_show_tell_each_refused_row_once_and_nothing_that_a_terminal_obeys(tmp_path, run):
    letters = refuse(tmp_path)
    assert letters.count() == 3
    listed = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
    assert [(about["id"], about["kind"], about["code"]) for about in listed] == [
        ("call-1", "AuditRow", "TOO_OLD"),
        ("cost-1", "CostRow", "INVALID"),
        ("session-1", "SessionRow", "INVALID"),
    ]
    assert "TOO_OLD" in run("list").stdout
    shown = run("show", "session-1").stdout
    assert json.loads(shown)["row"]["labels"] == {"team": "research"}
    assert "\x1b" not in shown


def test_resend_puts_rows_on_their_way_as_they_were_and_takes_them_out_of_the_file(tmp_path, run):
    letters = refuse(tmp_path)
    run("resend", "--code", "INVALID", "--dry-run")
    assert letters.count() == 3
    assert waiting(tmp_path) == []
    run("resend", "--code", "INVALID")
    assert [letter.id for letter in letters.read()] == ["call-1"]
    assert waiting(tmp_path) == [COST, SESSION]
    run("resend", "call-1")
    assert letters.count() == 0
    assert tool_call(1) in waiting(tmp_path)


def test_drop_says_what_it_drops_and_leaves_a_row_that_tells_the_ledger(tmp_path, run):
    letters = refuse(tmp_path)
    dropped = run("drop", "--all").stdout.splitlines()
    assert [json.loads(line)["id"] for line in dropped[:-1]] == ["call-1", "cost-1", "session-1"]
    assert letters.count() == 0
    (gap,) = waiting(tmp_path)
    counts = json.loads(gap.args_summary)
    assert (counts["tool_calls"], counts["model_requests"], counts["session_states"]) == (1, 1, 1)
    assert "an operator dropped them" in gap.error


def test_a_line_that_a_power_cut_has_torn_costs_itself_alone(tmp_path, run):
    letters = refuse(tmp_path)
    (path,) = (tmp_path / "spool" / "dead-letters").glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    letters.write("p-1", [DeadLetter(9, encode_row(tool_call(9)), "INVALID", "no")])
    assert [letter.id for letter in letters.read()] == ["call-1", "cost-1", "", "call-9"]
    run("resend", "--all")
    assert [bool(letter.about) for letter in letters.read()] == [False], "it may be of use to somebody yet"
    run("drop", "--all")
    assert letters.count() == 0


@pytest.mark.parametrize("command", ["show", "resend", "drop"])
def test_nothing_is_done_to_rows_that_nobody_named(tmp_path, run, command):
    letters = refuse(tmp_path)
    assert "--all" in run(command, code=1).stderr
    assert "no dead letter with the id nobody" in run(command, "nobody", "call-1", code=1).stderr
    assert letters.count() == 3


def test_a_state_directory_without_a_spool_is_refused_in_a_sentence(run):
    assert "GATEWAY_STATE_DIR" in run("list", code=1).stderr


async def test_a_row_that_was_refused_and_sent_again_beside_a_running_gateway_is_in_the_ledger_once(tmp_path, run):
    service = FakeAudit()

    async def reject(request: audit_pb2.RecordRequest, _context: Context) -> audit_pb2.RecordResponse:
        rejections = [
            audit_pb2.Rejection(
                kind=audit_pb2.ROW_KIND_TOOL_CALL, index=index, id=row.id, code=audit_pb2.REJECTION_CODE_INVALID
            )
            for index, row in enumerate(request.tool_calls)
        ]
        return audit_pb2.RecordResponse(range=request.range, rejections=rejections)

    service.behave = reject
    async with serving(service) as target:
        record = open_record(tmp_path, target)
        record.start()
        record.logger.record(tool_call(1))
        while not record.dead_letters.count():
            await asyncio.sleep(0.01)
        assert "1 rows that the ledger refused" in record.detail()
        service.behave = service.store
        run("resend", "--all")
        for spool in record._folders.adopt(9):
            record._sender.adopt(spool)
        await service.until_stored(1)
        assert await record.drain(30)
        assert list(service.ledger.values()) == [tool_call(1)]
        assert len(service.covered) == 1, "under a producer of its own"
        assert record.spool.id not in service.covered
        assert record.detail() == ""
        await record.aclose()
