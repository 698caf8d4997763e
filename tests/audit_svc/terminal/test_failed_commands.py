"""What is wrong with a command, a file or a service is told in a sentence."""

import json
import shutil
import subprocess
from pathlib import Path
from shlex import quote

import pytest

from audit_svc.__main__ import program
from audit_svc.ledger.batch import read_batch
from audit_svc.sqlite.open.connection import open_for_writing
from audit_svc.terminal.export import _named_at_the_end
from service_kit.terminal.failures import Failed
from tests.audit_svc.aged import make_ledger
from tests.audit_svc.empty import write_empty
from tests.audit_svc.samples import NOW_MS, audit_row, record_request, session_row
from tests.audit_svc.terminal.place import SESSION, Place, no_session
from tests.support.command_line import invoke
from tests.support.forked import run_command


@pytest.mark.long
@pytest.mark.parametrize("args", [["sessions"], ["sessions", "--json"], ["calls"], ["export"]])
def test_a_full_disk_behind_stdout_is_told_in_a_sentence(place: Place, args: list[str]):
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            place.command(*args), cwd=place.folder, env=place.env, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert "stdout cannot be written: No space left" in ran.stderr


@pytest.mark.long
def test_an_export_that_fails_leaves_the_file_of_before_as_it_was(place: Place):
    kept = place.folder / "kept.jsonl"
    kept.write_text("before")
    for more in ([], ["--format", "csv"], ["--format", "sealed"]):
        refused = place.run("export", "--output", "kept.jsonl", *more)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == "kept.jsonl is there already: choose another name, or replace it with --force\n"
    assert place.run("export", "--output", "kept.jsonl", "--force", "--target", "127.0.0.1:1").returncode == 1
    assert kept.read_text() == "before"
    assert place.run("export", "--output", "kept.jsonl", "--force").returncode == 0
    assert kept.read_text().startswith("{")
    assert place.run("export", "--output", "/dev/null").returncode == 0, "which is no file"
    assert not list(place.folder.glob(".kept*"))


def test_an_export_replaces_no_file_that_came_meanwhile(tmp_path: Path):
    output = tmp_path / "calls.jsonl"

    def export(*, force: bool) -> None:
        with _named_at_the_end(output, force=force) as partial:
            assert partial
            partial.write_text("ours")
            output.write_text("of another")

    with pytest.raises(Failed) as refused:
        export(force=False)
    assert "is there already" in refused.value.sentence
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of another"]
    export(force=True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["ours"]


@pytest.mark.long
def test_a_label_that_no_session_has_is_told(place: Place):
    ran = place.run("usage", "--by", "usre,tool", "--since", "1h")
    assert ran.returncode == 0
    assert "no session of these has a label 'usre'" in ran.stderr
    ran = place.run("usage", "--by", "label:recorded_by", "--since", "1h")
    assert "has a label 'recorded_by': to group by recorded_by, leave out 'label:'" in ran.stderr


def test_a_label_that_sessions_beyond_the_limit_have_is_not_told_as_one_that_none_has(database, open_writer):
    write_empty(database)
    writer = open_writer(open_for_writing(database))
    calls = [audit_row(session_id=id_) for id_ in ("labelled", "other", "other")]
    sessions = [session_row(id="labelled", labels={"user": "ada"}), session_row(id="other", labels={})]
    writer.record(read_batch(record_request(tool_calls=calls, sessions=sessions), NOW_MS)).result()
    writer.close()
    for order in ("value", "cost"):
        ran = invoke(program, ["usage", "--by", "user", "--limit", "1", "--order", order, "--db", str(database)])
        assert (ran.exit_code, "ada" in ran.stdout) == (0, False)
        assert "there are more: --limit shows them" in ran.stderr
        assert "has a label" not in ran.stderr


@pytest.mark.long
def test_that_nothing_matches_is_said(place: Place):
    ran = place.run("calls", "--tool", "nobody's")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "nothing matches\n")
    ran = place.run("calls", "--tool", "nobody's", "--since", "2026-11-01")
    assert ran.stderr == "nothing matches since 2026-11-01T00:00:00Z\n"


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (("calls", "--tool", "bsh"), "nothing matches"),
        (("requests", "--engine", "nobody's"), "nothing matches"),
        (("sessions", "--label", "team=no"), "nothing matches"),
        (("controls", "--principal", "no"), "nothing matches"),
        (("errors", "--tool", "bsh"), "nothing matches"),
        (("usage", "--by", "tool", "--tool", "bsh"), "nothing matches"),
        (("queries", "--since", "2026-11-01"), "nothing matches since 2026-11-01T00:00:00Z"),
        (("hold", "list"), "no hold is in place"),
        (("producers",), "no producer has sent anything"),
    ],
)
def test_that_nothing_matches_is_said_to_programs_too(tmp_path, words: tuple[str, ...], note: str):
    write_empty(tmp_path / "audit.db")
    ran = invoke(program, [*words, "--json", "--db", str(tmp_path / "audit.db")])
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert any(json.loads(line)["note"].startswith(note) for line in ran.stderr.splitlines())


@pytest.mark.long
@pytest.mark.parametrize("where", [[], ["--db", "audit-backup.db"]], ids=["service", "file"])
@pytest.mark.parametrize("command", ["calls", "requests", "errors", "usage", "export"])
def test_a_session_or_a_turn_that_is_not_on_record_is_no_empty_list(place: Place, command: str, where: list[str]):
    for filters, said in (
        (["--session", "nope"], f"{no_session(*where)}\n"),
        (["--turn", "nope"], "the ledger has no turn with this id\n"),
        (["--session", SESSION, "--turn", "nope"], "the ledger has no turn with this id in this session\n"),
    ):
        ran = place.run(command, *filters, *where)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr.endswith(said)
    ran = place.run(command, "--session", SESSION, "--turn", "turn-1", "--engine", "nobody's", *where)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "nothing matches" in ran.stderr


@pytest.mark.long
@pytest.mark.parametrize("words", [("show", "nobody"), ("calls", "--session", "nobody")])
def test_what_lists_sessions_asks_the_ledger_that_was_named(place: Place, words: tuple[str, ...]):
    target = ("--target", place.service.address)
    assert place.run(*words, *target).stderr.endswith(f"{no_session(*target)}\n")
    shutil.copy(place.folder / "audit-backup.db", place.folder / "a copy.db")
    named = ("--db", "a copy.db")
    assert place.run(*words, *named).stderr.endswith(f"{no_session('--db', quote(named[1]))}\n")
    ran = run_command("onrecord_cli", place.env, *words, *named, folder=place.folder)
    assert "`onrecord sessions --db 'a copy.db'` lists those" in ran.stderr
    ran = run_command("audit_svc", place.env | {"ONRECORD_DB": named[1]}, *words, folder=place.folder)
    assert ran.stderr.endswith(f"{no_session()}\n"), "which asks the same"


@pytest.mark.long
def test_what_is_not_on_record_is_told_to_programs_by_its_reason(place: Place):
    ran = place.run("calls", "--session", "nope", "--json")
    told = json.loads(ran.stderr)["error"]
    assert (told["exit_code"], told["reason"]) == (1, "NOT_FOUND")
    assert told["metadata"] == {"resource": "session", "id": "nope"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["calls", "--since", "soon"], 2, "is neither a time such as"),
        (["calls", "--outcome", "nice"], 2, "'nice' is not one of succeeded"),
        (["sessions", "--label", "user"], 2, "is not key=value"),
        (["calls", "--label", "=bar"], 2, "--label: '=bar' is not key=value"),
        (["calls", "--db", ""], 2, "argument --db: is empty"),
        (["check", "--db", ""], 2, "--db: is empty"),
        (["compare", SESSION[-8:]], 1, f"no shadow ran in session {SESSION}"),
        (["show", ""], 2, "SESSION: is empty"),
        (["compare", ""], 2, "SESSION: is empty"),
        (["proof", "", "--db", "audit-backup.db"], 2, "ID: is empty"),
        (["usage", "--by", "tool,tool"], 2, "--by: has an entry twice"),
        (["hold", "place", "", "--reason", "x", "--tool", "none", "--db", "audit-backup.db"], 2, "NAME: is empty"),
        (["calls", "--contains", "x" * 5000], 2, "--contains is longer than 4096"),
        (["calls", "--contains", "x" * 5000, "--db", "audit-backup.db"], 2, "--contains is longer than 4096"),
        (["calls", "--target", ""], 2, "--target: is empty"),
        (["calls", "--target", "127.0.0.1:1", "--db", "a.db"], 2, "give a file or a service, and not both"),
        (["backup", "x.db", "--target", "127.0.0.1:1", "--db", "a.db"], 2, "give a file or a service, and not both"),
        (["show", "nobody"], 1, no_session()),
        (["show", "nobody", "--db", "audit-backup.db"], 1, no_session("--db", "audit-backup.db")),
        (["show", SESSION[-3:]], 1, f"{no_session()}; a part of an id needs at least 4 characters"),
        (["calls", "--session", "abc", "--db", "audit-backup.db"], 1, "; a part of an id needs at least 4 characters"),
        (["calls", "--since", "1h", "--until", "2h"], 2, "--since: 1h is not before --until 2h"),
        (["export", "--format", "parquet"], 2, "needs --output"),
        (["export", "--output", "/nowhere/calls.jsonl"], 1, "cannot be written: No such file"),
        (["calls", "--target", "127.0.0.1:1"], 1, "nobody listens on 127.0.0.1:1: is an audit service running there?"),
        (["calls", "--db", "nothing.db"], 1, "there is no file nothing.db"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(place: Place, args: list[str], code: int, said: str):
    ran = place.run(*args)
    assert ran.returncode == code
    assert said in " ".join(ran.stderr.split())


@pytest.mark.long
def test_a_damaged_page_is_told_in_a_sentence_and_nothing_but_rows_is_on_stdout(place: Place):
    damaged = place.folder / "damaged.db"
    make_ledger(damaged, hours=3, calls=500)
    size = damaged.stat().st_size
    with damaged.open("r+b") as file:
        file.seek(size * 3 // 10)
        file.write(b"\xa5" * (size // 2))
    ran = place.run("export", "--db", "damaged.db")
    assert ran.returncode == 1
    assert "restore a backup" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert all("id" in json.loads(line) for line in ran.stdout.splitlines())
    ran = place.run("show", "nobody", "--db", "audit-backup.db")
    assert (ran.returncode, ran.stdout) == (1, "")


@pytest.mark.long
@pytest.mark.parametrize("command", ["calls", "rebuild-rollups", "serve", "migrate up"])
def test_a_folder_in_the_place_of_the_database_is_refused(place: Place, command: str):
    (place.folder / "folder.db").mkdir(exist_ok=True)
    ran = place.run(*command.split(), "--db", "folder.db")
    assert ran.returncode == (2 if command == "serve" else 1)
    assert "folder.db" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.long
def test_a_file_of_another_schema_or_none_is_refused(place: Place):
    (place.folder / "noise.db").write_bytes(b"not a database, " * 1000)
    assert "not an SQLite database" in place.run("calls", "--db", "noise.db").stderr
    shutil.copy(place.folder / "audit-backup.db", place.folder / "older.db")
    assert place.run("migrate", "down", "--to", "12", "--db", "older.db").returncode == 0
    ran = place.run("calls", "--db", "older.db")
    assert ran.returncode == 1
    assert "migrate up" in ran.stderr
    assert place.run("migrate", "down", "--to", "0", "--db", "older.db").returncode == 0
    ran = place.run("backup", "oldest.db", "--db", "older.db")
    assert "sound, with 0 tool calls" in ran.stdout, ran.stderr
