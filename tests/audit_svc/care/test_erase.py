"""Erasing in a file: nothing of a text stays in it, the seal still fits, and each step is short enough."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import grpc
import pytest
from onrecord.audit.v1 import administration_pb2, audit_pb2
from onrecord.audit.v1.questions_pb2 import RowKey

from audit_svc.__main__ import program
from audit_svc.errors import DatabaseInUse
from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.erasing import Erasure
from audit_svc.sql.care.erase import BATCH_ROWS
from audit_svc.sql.write.clock import LedgerClock
from audit_svc.sqlite.care.check import check
from audit_svc.sqlite.care.erase import Erase, erase_file
from audit_svc.sqlite.open.connection import open_for_reading, open_for_writing, transaction
from audit_svc.sqlite.open.lock import FileLock
from audit_svc.sqlite.text.indexer import Indexer
from audit_svc.sqlite.text.text_index import index_rows
from tests.audit_svc.empty import write_empty
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, record_request, session_row
from tests.support.command_line import invoke

SECRET = "qz7-patient-4711-kxw"
"""It has trigrams that nothing else in a ledger has."""


def fill(database: Path, rows: int, open_writer: Callable[..., Any]) -> None:
    """Rows of session-1, whose texts have SECRET, and one of another session, in the index of texts."""
    write_empty(database)
    connection = open_for_writing(database)
    writer = open_writer(connection, indexer=Indexer(connection))
    long = f"{SECRET} " * 150  # on a page of its own
    request = record_request(
        tool_calls=[
            *(audit_row(args_summary=long if n % 7 == 0 else f"{n} {SECRET}", error=SECRET) for n in range(rows)),
            audit_row(session_id="session-2", args_summary="path: needle"),
        ],
        model_requests=[cost_row(error=SECRET)],
        sessions=[session_row()],
        controls=[
            audit_pb2.ControlRow(
                id="stop",
                kind=audit_pb2.CONTROL_KIND_STOP,
                principal="ops",
                scope="all",
                reason=SECRET,
                at_ms=NOW_MS,
            )
        ],
    )
    writer.record(read_batch(request, NOW_MS)).result()
    writer.run(lambda _: None).result()
    writer.close()
    with closing(open_for_writing(database)) as connection:
        list(index_rows(connection))


def wrong(database: Path) -> list[str]:
    return [f"{found.check}: {found.detail}" for found in check(database, lambda *_: None) if found.state == "wrong"]


def test_nothing_of_an_erased_text_stays_in_the_file(database, open_writer):
    fill(database, 2 * BATCH_ROWS, open_writer)
    assert SECRET.encode() in database.read_bytes()
    told = list(erase_file(database, Erasure("ada", "asked to", session_id="session-1")))
    assert len(told) > 3
    list(erase_file(database, Erasure("ada", "asked to", row_id="stop")))
    for path in database.parent.glob(f"{database.name}*"):
        data = path.read_bytes() if path.is_file() else b""
        assert SECRET.encode() not in data, path
        assert SECRET.encode()[:8] not in data, path
    with closing(apsw.Connection(str(database))) as connection:
        connection.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab (main, args_index, row)")
        assert connection.execute("SELECT count(*) FROM terms WHERE term IN ('qz7', 'kxw', '711')").fetchall() == [(0,)]
        assert connection.execute("SELECT count(*) FROM terms WHERE term = 'era'").fetchall() == [(1,)]
        assert connection.pragma("freelist_count") == 0
    assert wrong(database) == []


def test_an_entry_says_whose_texts_by_whom_and_why(database, open_writer):
    fill(database, 5, open_writer)
    list(erase_file(database, Erasure("ada", "asked to", session_id="session-1")))
    with closing(open_for_reading(database)) as connection:
        entries = connection.execute(
            "SELECT erased_kind, first_position, last_position, erased_by, reason FROM erasure_log ORDER BY position"
        ).fetchall()
        assert entries == [("tool_call", 1, 5, "ada", "asked to"), ("model_request", 1, 1, "ada", "asked to")]
        salts = connection.execute("SELECT position FROM tool_call_log WHERE salt IS NOT NULL").fetchall()
        assert salts == [(6,)]


def test_what_an_erasure_that_ended_early_left_in_the_index_goes_with_the_next(database, open_writer):
    fill(database, 5, open_writer)
    list(erase_file(database, Erasure("ada", "asked to", row_id="stop")))
    with closing(open_for_writing(database)) as connection, transaction(connection):
        Erase(Erasure("ada", "asked to", session_id="session-1"), LedgerClock(connection)).step(connection)
    assert wrong(database) == []
    assert SECRET.encode() not in database.read_bytes()
    assert b"qz7" in database.read_bytes()
    list(erase_file(database, Erasure("ada", "asked to", row_id="stop")))
    assert b"qz7" not in database.read_bytes()


def test_texts_that_are_not_indexed_yet_are_indexed_as_erased(database, open_writer):
    write_empty(database)
    writer = open_writer(open_for_writing(database))
    writer.record(read_batch(record_request(tool_calls=[audit_row(args_summary=SECRET)]), NOW_MS)).result()
    writer.close()
    list(erase_file(database, Erasure("ada", "asked to", session_id="session-1")))
    with closing(open_for_writing(database)) as connection:
        list(index_rows(connection))
    assert wrong(database) == []


def test_a_file_that_a_service_has_open_is_left_alone(database, open_writer):
    fill(database, 1, open_writer)
    with FileLock(database), pytest.raises(DatabaseInUse):
        list(erase_file(database, Erasure("ada", "asked to", session_id="session-1")))


def test_the_command_counts_and_erases_a_file(database, open_writer):
    fill(database, 2, open_writer)
    words = ("erase", "--session", "session-1", "--reason", "asked to", "--db", str(database))
    assert invoke(program, [*words, "--dry-run"]).stdout.startswith("would erase the texts of 2 tool calls, 1 model")
    assert invoke(program, words).stdout == "erased the texts of 2 tool calls, 1 model request and 0 acts of control\n"
    with closing(open_for_reading(database)) as connection:
        assert connection.execute("SELECT count(*) FROM tool_call_log WHERE error = '[erased]'").fetchall() == [(2,)]
    refused = invoke(program, ["erase", "nobody", "--reason", "x", "--db", str(database)])
    assert (refused.exit_code, "no row with this id" in refused.stderr) == (1, True)


FEW, MANY = "01900000-0000-7000-8000-0000000000fe", "01900000-0000-7000-8000-0000000000ff"


def fill_alike(database: Path, open_writer: Callable[..., Any]) -> None:
    """Two rows of two sessions, whose ids begin alike, and one whose id is the end of another's."""
    write_empty(database)
    writer = open_writer(open_for_writing(database))
    ids = [FEW, MANY, MANY[-12:]]
    calls = [audit_row(id=id_, session_id=id_, args_summary=SECRET) for id_ in ids]
    request = record_request(tool_calls=calls, sessions=[session_row(id=id_) for id_ in ids])
    writer.record(read_batch(request, NOW_MS)).result()
    writer.close()


def erased_ids(database: Path) -> list[str]:
    with closing(open_for_reading(database)) as connection:
        return [id_ for (id_,) in connection.execute("SELECT id FROM tool_call_log WHERE erased IS NOT NULL")]


@pytest.mark.long
@pytest.mark.parametrize("by", [[], ["--session"]], ids=["row", "session"])
@pytest.mark.parametrize("part", [FEW[-8:], FEW[-12:]])
def test_the_end_of_an_id_stands_for_it(database, open_writer, by, part):
    fill_alike(database, open_writer)
    ran = invoke(program, ["erase", *by, part, "--reason", "x", "--db", str(database)])
    assert (ran.exit_code, f"{part} is {FEW}" in ran.stderr) == (0, True)
    assert erased_ids(database) == [FEW]


@pytest.mark.long
@pytest.mark.parametrize("by", [[], ["--session"]], ids=["row", "session"])
@pytest.mark.parametrize(
    ("part", "code", "said"),
    [
        (FEW[:13], 2, "fits 2: "),
        ("000000fe"[-7:], 1, "erasing needs 8 characters"),
        ("@lst", 1, "erasing needs 8 characters"),
        ("0123456789", 1, "with this id"),
    ],
)
def test_what_may_be_several_is_not_erased(database, open_writer, by, part, code, said):
    fill_alike(database, open_writer)
    ran = invoke(program, ["erase", *by, part, "--reason", "x", "--db", str(database)])
    assert (ran.exit_code, said in ran.stderr) == (code, True), ran.stderr
    assert erased_ids(database) == []


def test_the_newest_session_is_erased_by_its_word_and_no_row_is(database, open_writer):
    fill_alike(database, open_writer)
    where = ["@last", "--reason", "x", "--db", str(database)]
    ran = invoke(program, ["erase", *where])
    assert (ran.exit_code, "ROW: @last is a session: --session @last" in ran.stderr) == (2, True)
    assert erased_ids(database) == []
    (newest,) = invoke(program, ["sessions", "--limit", "1", "--db", str(database)]).stdout.splitlines()[1:]
    ran = invoke(program, ["erase", "--session", *where])
    (erased,) = erased_ids(database)
    assert (ran.exit_code, f"@last is {erased}" in ran.stderr, erased in newest) == (0, True, True)


def test_an_id_in_capitals_is_the_one_that_it_is(database, open_writer):
    fill_alike(database, open_writer)
    for by in ([], ["--session"]):
        ran = invoke(program, ["erase", *by, FEW.upper(), "--reason", "x", "--dry-run", "--db", str(database)])
        assert ran.stdout.startswith("would erase the texts of 1 tool call"), ran.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["", "--reason", "x"], "NAME: is empty"),
        (["n" * 200, "--reason", "x"], "NAME: is longer than 128 characters"),
        (["case", "--reason", " "], "--reason: is empty: say why"),
    ],
)
def test_a_hold_that_cannot_be_is_refused_before_anything_is_said_of_the_record(database, open_writer, given, said):
    fill(database, 1, open_writer)
    placed = invoke(program, ["hold", "place", *given, "--tool", "deploy", "--db", str(database)])
    assert (placed.exit_code, said in placed.stderr, "nothing on record" in placed.stderr) == (2, True, False)
    assert invoke(program, ["hold", "lift", *given, "--db", str(database)]).exit_code == 2


def test_a_hold_is_told_as_one_types_it(database, open_writer):
    fill(database, 1, open_writer)
    where = ("--db", str(database))
    given = "--tool bash --outcome failed --agent codex --label name=x --since 2026-01-01 --tool-glob b*"
    assert invoke(program, ["hold", "place", "case", "--reason", "x", *given.split(), *where]).exit_code == 0
    (_, line) = invoke(program, ["hold", "list", *where]).stdout.splitlines()
    for typed in given.replace("2026-01-01", "2026-01-01T00:00:00Z").split(" --"):
        assert f"--{typed.removeprefix('--')}" in line
    invoke(program, ["hold", "place", "all", "--all", "--reason", "x", *where])
    assert "everything" in invoke(program, ["hold", "list", *where]).stdout


def test_a_whole_id_is_never_taken_for_a_part_of_another(database, open_writer, monkeypatch):
    """Even if it is too old to be among those that parts are looked for among."""
    fill_alike(database, open_writer)
    monkeypatch.setattr("audit_svc.terminal.client.LOOKED_THROUGH", 1)
    ran = invoke(program, ["erase", MANY[-12:], "--reason", "x", "--db", str(database)])
    assert ran.exit_code == 0, ran.stderr
    assert erased_ids(database) == [MANY[-12:]]


async def test_a_service_erases_beside_its_readers_and_tells_how_far_it_is(ledger):
    rows = [audit_row() for _ in range(BATCH_ROWS + 10)]
    await ledger.RecordBatch(record_request(tool_calls=rows))
    request = administration_pb2.EraseRequest(session=RowKey(id="session-1"), reason="asked to", dry_run=True)
    (counted,) = [one async for one in ledger.Erase(request)]
    assert (counted.tool_calls, counted.done) == (BATCH_ROWS + 10, True)
    request.dry_run = False
    told = [one async for one in ledger.Erase(request)]
    assert (told[0].tool_calls, told[0].done) == (BATCH_ROWS, False)
    assert (told[-1].tool_calls, told[-1].done) == (BATCH_ROWS + 10, True)
    assert not told[-1].left_in_wal
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        _ = [one async for one in ledger.Erase(administration_pb2.EraseRequest(row=RowKey(id="nobody"), reason="x"))]
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_the_commands_of_holds_place_list_and_lift_one_in_a_file(database, open_writer):
    fill(database, 2, open_writer)
    where = ("--db", str(database))
    nothing = invoke(program, ["hold", "place", "case", "--reason", "x", *where])
    assert (nothing.exit_code, "--all" in nothing.stderr) == (2, True)
    placed = invoke(program, ["hold", "place", "case", "--session", "session-1", "--reason", "x", *where])
    assert placed.stdout.startswith("placed case: --session session-1, placed ")
    refused = invoke(program, ["erase", "--session", "session-1", "--reason", "x", *where])
    assert (refused.exit_code, "the legal hold 'case' holds" in refused.stderr) == (1, True)
    names, line = invoke(program, ["hold", "list", *where]).stdout.splitlines()
    assert names.split() == ["name", "held", "placed", "by", "reason"]
    assert line.split()[:3] == ["case", "--session", "session-1"]
    assert invoke(program, ["hold", "lift", "case", "--reason", "settled", *where]).exit_code == 0
    assert invoke(program, ["hold", "list", *where]).stdout == ""
    assert '"lift_reason": "settled"' in invoke(program, ["hold", "list", "--lifted", "--json", *where]).stdout


def test_a_hold_takes_a_part_of_an_id_and_says_where_nothing_is_on_record(database, open_writer):
    """What it held would else be nothing, and told as placed."""
    fill_alike(database, open_writer)
    where = ("--reason", "x", "--db", str(database))
    placed = invoke(program, ["hold", "place", "case", "--session", FEW[-8:], *where])
    assert (placed.exit_code, f"--session {FEW}," in placed.stdout) == (0, True)
    assert "on record" not in placed.stderr
    several = invoke(program, ["hold", "place", "other", "--session", FEW[:13], *where])
    assert (several.exit_code, "fits 2: " in several.stderr) == (2, True)
    whole = invoke(program, ["hold", "place", "old", "--session", MANY[-12:], *where])
    assert f"--session {MANY[-12:]}," in whole.stdout
    to_come = invoke(program, ["hold", "place", "later", "--session", "nope", *where])
    assert (to_come.exit_code, "the ledger has no session with this id yet" in to_come.stderr) == (0, True)


@pytest.mark.long
def test_a_hold_that_nothing_meets_yet_says_so_and_is_placed(database, open_writer):
    fill(database, 2, open_writer)
    where = ("--reason", "x", "--db", str(database))
    met = [
        ("--tool", "bash"),
        ("--tool-glob", "ba*"),
        ("--label", "user=ada"),
        ("--principal", "ops"),
        ("--since", "30d"),
        ("--session", "session-1"),
        ("--all",),
    ]
    to_come = [
        ("--tool", "deploy"),
        ("--tool-glob", "de*y"),
        ("--tool", "bash", "--tool-glob", "de*"),
        ("--label", "user=nobody"),
        ("--principal", "nobody"),
        ("--model", "none"),
        ("--tool", "bash", "--outcome", "denied"),
        ("--until", "2020-01-01"),
    ]
    for number, given in enumerate([*met, *to_come]):
        placed = invoke(program, ["hold", "place", f"case-{number}", *given, *where])
        assert (placed.exit_code, placed.stdout.startswith("placed case-")) == (0, True), (given, placed.stderr)
        assert ("nothing on record meets this yet" in placed.stderr) == (given in to_come), (given, placed.stderr)


def test_a_failure_says_which_file_it_is_of_once(database, open_writer):
    fill(database, 1, open_writer)
    words = ["erase", "--session", FEW, "--reason", "x"]
    said = invoke(program, words, {"AUDIT_DB": str(database)}).stderr.splitlines()
    assert said[0].startswith(f"the ledger is the file {database}; ")
    assert said[1:] == ["the ledger has no session with this id: `audit-svc sessions` lists those that it has"]
    none = database.with_name("none.db")
    assert invoke(program, words, {"AUDIT_DB": str(none)}).stderr.startswith(f"there is no file {none}")


@pytest.mark.long
@pytest.mark.parametrize(
    "line",
    [
        *("hold list", "hold place case --all --reason x", "hold lift case --reason x", "prune --before 90d --dry-run"),
        *("erase --session session-1 --reason x --dry-run", "backup copy.db --dry-run"),
    ],
)
def test_commands_say_which_file_they_work_on_where_no_option_names_it(database, open_writer, line):
    fill(database, 1, open_writer)
    said = f"the ledger is the file {database}; for a running service give --target HOST:PORT"
    assert said in invoke(program, line.split(), {"AUDIT_DB": str(database)}).stderr.splitlines()
    assert said not in invoke(program, [*line.split(), "--db", str(database)]).stderr


@pytest.mark.parametrize(
    ("line", "asks"),
    [
        *((line, True) for line in ("hold list", "proof 0190", "backup b.db", "prune --before 90d", "verify")),
        ("erase --session session-1 --reason x", True),
        *((line, False) for line in ("check", "seal status", "export --format sealed --output o")),
    ],
)
def test_where_the_file_is_missing_what_makes_it_is_said_and_that_a_service_can_be_asked(tmp_path, line, asks):
    none = tmp_path / "none.db"
    hint = "for a running service give --target HOST:PORT; " if asks else ""
    said = f"there is no file {none}: {hint}`audit-svc serve` makes it"
    assert invoke(program, line.split(), {"AUDIT_DB": str(none)}).stderr.splitlines() == [said]
    assert "--target" not in invoke(program, [*line.split(), "--db", str(none)]).stderr


def test_no_hold_is_said(database, open_writer):
    fill(database, 1, open_writer)
    ran = invoke(program, ["hold", "list", "--db", str(database)])
    assert (ran.exit_code, ran.stdout, ran.stderr.splitlines()[-1]) == (0, "", "no hold is in place")


def test_of_a_part_that_is_too_short_to_erase_nothing_else_is_said(database, open_writer):
    fill(database, 1, open_writer)
    ran = invoke(program, ["erase", "ca628", "--reason", "x", "--db", str(database)])
    needs = "of a longer one, erasing needs 8 characters of its beginning or its end"
    assert (ran.exit_code, ran.stderr.splitlines()[1:]) == (1, [f"there is no row with this id; {needs}"])
