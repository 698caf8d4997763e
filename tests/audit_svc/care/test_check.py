"""Each fact that check looks at, broken on purpose."""

from pathlib import Path

import apsw
import pytest

from audit_svc.__main__ import program
from audit_svc.errors import StoreRefused
from audit_svc.ledger.steps import DAY_MS
from audit_svc.sqlite.care.check import check
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import open_for_writing
from tests.audit_svc.aged import ago, make_ledger
from tests.audit_svc.care.test_backup import damage, silent
from tests.support.command_line import invoke

DAYS = len({ago(hours) // DAY_MS for hours in (1, 2, 3)})
"""Of a ledger of the last three hours: two, where midnight is among them."""


def findings(path: Path, state: str) -> list[str]:
    return [f"{found.check}: {found.detail}" for found in check(path, silent) if found.state == state]


def change(path: Path, *statements: str) -> None:
    connection = open_for_writing(path)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_sound_ledger_is_sound_in_all_that_is_checked(database):
    make_ledger(database, hours=3)
    assert [(found.check, found.state) for found in check(database, silent)] == [
        (name, "ok")
        for name in ("wal", "integrity", "schema", "labels", "producers", "ids", "pruned", "clock", "rollups", "texts")
    ]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM sessions WHERE id = 'session-1'", "labels: 2 labels of sessions that are not there"),
        ("INSERT INTO producer_gaps VALUES ('nobody', '', 1, 2)", "producers: nobody: the gap 1 to 2 cannot be"),
        (
            f"INSERT INTO pruned VALUES (1, {ago(2)}, 0, 0, 0, 0, 0, 0, 0, 0, 'ada', 1, 2)",
            "pruned: 10 rows of tool_call_log are older than what was pruned",
        ),
        (
            "UPDATE tool_call_usage_hourly SET calls = calls + 1",
            "rollups: 3 rows of tool_call_usage_hourly are not what the rows say: run rebuild-rollups",
        ),
        (
            "DELETE FROM request_usage_daily",
            f"rollups: {DAYS} rows of request_usage_daily are not what the rows say: run rebuild-rollups",
        ),
        ("UPDATE schema_migrations SET checksum = 'x' WHERE version = 7", "schema: migration 0007_tool_call_log was"),
        (
            "INSERT INTO schema_migrations VALUES (9999, 'future', 'x', 0)",
            "schema: the database has migration 9999",
        ),
        (
            "DROP INDEX idx_tool_call_log_error",
            "schema: the database is dirty: index idx_tool_call_log_error",
        ),
    ],
    ids=["labels", "gap", "pruned", "hourly", "daily", "edited", "newer", "dirty"],
)
def test_what_cannot_be_is_wrong(database, statement, said):
    make_ledger(database, hours=3)
    change(database, statement)
    assert findings(database, "wrong")[0].startswith(said)


def test_an_id_that_two_callers_recorded_is_a_note_that_names_both(database):
    make_ledger(database, hours=1)
    for name in ("gateway", "mallory"):
        change(
            database,
            f"INSERT INTO recorders VALUES ('{name}')",
            f"INSERT INTO producers VALUES ('p', '{name}', 1, 0, 0)",
            "INSERT INTO cost_log (id, session_id, turn_id, engine, model, requested_model, input_tokens, "
            "output_tokens, cached_input_tokens, reasoning_tokens, duration_ms, created_at, usage_incomplete, "
            "recorded_by) "
            f"VALUES ('x', 's', '', 'e', 'm', 'm', 0, 0, 0, 0, 0, 1800000000000, 0, '{name}')",
        )
    assert [note for note in findings(database, "note") if note.startswith("ids")] == [
        "ids: the model request 'x' was recorded by 'gateway', 'mallory'",
        "ids: the producer's id 'p' was recorded by 'gateway', 'mallory'",
    ]


def test_what_a_producer_never_sent_is_a_note(database):
    make_ledger(database, hours=1)
    change(
        database,
        "INSERT INTO producers VALUES ('gateway-1', '', 10, 0, 0)",
        "INSERT INTO producer_gaps VALUES ('gateway-1', '', 2, 4)",
        "INSERT INTO producer_gaps VALUES ('gateway-1', '', 8, 8)",
    )
    assert findings(database, "note") == [
        "producers: gateway-1: records 2 to 4 never came (3)",
        "producers: gateway-1: records 8 to 8 never came (1)",
    ]
    assert findings(database, "wrong") == []
    change(database, "INSERT INTO producer_gaps VALUES ('gateway-1', '', 4, 5)")
    assert findings(database, "wrong") == ["producers: gateway-1: the gap 4 to 5 cannot be"]


def test_no_producers_name_makes_a_line_of_its_own_or_turns_one_round(database):
    """It is told by whoever records: a name may look like a finding."""
    make_ledger(database, hours=1)
    change(
        database,
        "INSERT INTO producers VALUES ('b/\u202ex\nok     producers', '', 10, 0, 0)",
        "INSERT INTO producer_gaps VALUES ('b/\u202ex\nok     producers', '', 2, 4)",
    )
    said = invoke(program, ["check", "--db", str(database)]).stdout
    assert r"b/\u202ex\x0aok     producers: records 2 to 4 never came" in said
    assert all(line.isprintable() for line in said.split("\n"))


def test_damage_is_found(database):
    make_ledger(database, hours=20, calls=100)
    damage(database)
    try:
        found = findings(database, "wrong")
    except StoreRefused as refusal:
        found = [str(refusal)]
    assert found
    assert "integrity" in found[0] or "damaged" in found[0]


def test_an_older_schema_says_what_to_run(database):
    connection = open_for_writing(database)
    migrate.up(connection, migrate.load_migrations()[:3])
    connection.close()
    (said,) = findings(database, "wrong")
    assert "older than this audit-svc" in said
    assert "run migrate up" in said


def nothing(path: Path) -> None:
    """There is no file."""


def garbage(path: Path) -> None:
    path.write_bytes(b"\x00garbage" * 1000)


def folder(path: Path) -> None:
    path.mkdir()


def empty(path: Path) -> None:
    path.touch()


def other(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE notes (text)")
    connection.close()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (nothing, "there is no file"),
        (garbage, "is not an SQLite database"),
        (empty, "is not an SQLite database"),
        (folder, "cannot be read"),
        (other, "no ledger of audit-svc"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_ledger_is_refused_in_a_sentence(database, make, said):
    make(database)
    with pytest.raises(StoreRefused, match=said):
        list(check(database, silent))
