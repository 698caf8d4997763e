"""`audit-svc copy`: a ledger moves to PostgreSQL and back with all that it is, cut short or not."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from audit_svc.__main__ import program
from audit_svc.copying.ends import FileTarget
from audit_svc.errors import MigrationRefused
from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.copying import UNFINISHED, differences
from audit_svc.ledger.erasing import Erasure
from audit_svc.postgres.copying import PostgresTables
from audit_svc.postgres.open import migrate
from audit_svc.postgres.open.connection import connect
from audit_svc.sealing.places import open_sealer, place_of
from audit_svc.sqlite.care.erase import erase_file
from audit_svc.sqlite.copying import SqliteTables
from audit_svc.sqlite.open.connection import open_for_reading, open_for_writing
from audit_svc.sqlite.open.served import marker_of
from audit_svc.sqlite.write.writer import Writer
from demo.processes import REPOSITORY, environment
from tests.audit_svc.samples import NOW_MS, audit_row, record_request
from tests.audit_svc.seal.conftest import rows
from tests.support.command_line import invoke

pytestmark = pytest.mark.postgres
ROWS = 60


@pytest.fixture
def ledger(connection: Any, open_writer: Callable[..., Writer], database: Path) -> Path:
    """A sealed ledger that no service has open, with rows of every kind, erased texts and a hold."""
    writer = open_writer(connection)
    for first in range(3):
        made: dict[str, Any] = rows(ROWS)
        request = record_request(**made, last=first * 1000 + 7, producer_id=f"p{first}")
        writer.record(read_batch(request, NOW_MS)).result()
    writer.run(
        lambda made: made.execute(
            "INSERT INTO hold_log (act, name, filter, acted_by, reason, recorded_at) "
            "VALUES ('lifted', 'case-7', '{}', 'ada', 'a court', 7)"
        )
    ).result()
    writer.close()
    connection.close()
    seal(str(database), database.with_name("audit.db.seal") / "key")
    for _ in erase_file(database, Erasure(session_id="session-1", by="ada", reason="asked to")):
        pass
    seal(str(database), database.with_name("audit.db.seal") / "key")
    return database


def seal(place: str, key: Path) -> int:
    with open_sealer(place_of(place), key, "ledger.example.com/test") as sealer:
        while sealer.step():
            pass
        return sealer.size


def copy(source: object, target: object) -> Any:
    return invoke(program, ["copy", "--from", str(source), "--to", str(target)])


def differ(file: Path, url: str) -> list[str]:
    with closing(open_for_reading(file)) as sqlite, closing(connect(url)) as postgres:
        return differences(SqliteTables(sqlite, file), PostgresTables(postgres))


def test_a_ledger_moves_to_postgresql_and_back(ledger: Path, postgres_database: str, tmp_path: Path):
    there = copy(ledger, postgres_database)
    assert there.exit_code == 0, there.stderr
    assert "counts and sums are alike" in there.stdout
    assert differ(ledger, postgres_database) == []
    key = ledger.with_name("audit.db.seal") / "key"
    with closing(connect(postgres_database, writes=True)) as connection:
        assert migrate.pending(connection, migrate.load_migrations()) == []
        # the log goes on there, from the positions that were given
        before = seal(postgres_database, key)
        connection.execute(
            "INSERT INTO query_log (caller, method, filters, rows, duration_ms, status, created_at) "
            "VALUES ('ada', 'ListToolCalls', '{}', 1, 2, 'OK', 3)"
        )
    assert seal(postgres_database, key) == before + 1
    verified = invoke(program, ["verify", "--db", str(ledger), "--old-checkpoint", str(key.with_name("checkpoint"))])
    assert verified.exit_code == 0, verified.stdout

    back = tmp_path / "back" / "audit.db"
    back.parent.mkdir()
    here = copy(postgres_database, back)
    assert here.exit_code == 0, here.stderr
    assert {path.name for path in back.parent.iterdir()} == {*("audit.db", "audit.db.seal", marker_of(back).name)}
    assert differ(back, postgres_database) == []
    kept = ("--key", str(key.with_name("key.pub")), "--old-checkpoint", str(key.with_name("checkpoint")))
    checked = invoke(program, ["verify", "--db", str(back), *kept])
    assert checked.exit_code == 0, checked.stdout
    assert invoke(program, ["check", "--db", str(back)]).exit_code == 0
    assert not (back.parent / "audit.db.seal" / UNFINISHED).exists()
    # what is copied goes on being sealed there, with the key
    (back.parent / "audit.db.seal" / "key").write_bytes(key.read_bytes())
    assert seal(str(back), back.parent / "audit.db.seal" / "key") == before + 1


def test_what_has_rows_is_refused(ledger: Path, postgres_database: str, tmp_path: Path):
    assert copy(ledger, postgres_database).exit_code == 0
    again = copy(ledger, postgres_database)
    assert (again.exit_code, "has rows or a seal: copy into an empty one" in again.stderr) == (1, True)
    taken = copy(postgres_database, ledger)
    assert (taken.exit_code, "there is a file" in taken.stderr) == (1, True)
    other = copy(ledger, tmp_path / "other.db")
    assert (other.exit_code, "audit-svc backup" in other.stderr) == (2, True)
    gone = copy(tmp_path / "gone.db", postgres_database)
    assert (gone.exit_code, "there is no file" in gone.stderr) == (1, True)


def test_a_ledger_that_is_served_is_refused(ledger: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch):
    from audit_svc.sqlite.open.lock import FileLock

    with FileLock(ledger):
        served = copy(ledger, postgres_database)
    assert (served.exit_code, "stop it first, or choose another with --from" in served.stderr) == (1, True)
    assert copy(ledger, postgres_database).exit_code == 0

    with closing(connect(postgres_database, writes=True)) as writer:

        def beat(seconds: float) -> None:
            writer.execute("UPDATE ledger_lease SET beats = beats + 1")

        monkeypatch.setattr("audit_svc.postgres.open.served.time.sleep", beat)
        served = copy(postgres_database, ledger.with_name("back.db"))
    assert (served.exit_code, "a replica of audit-svc writes to the database" in served.stderr) == (1, True)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("to_file", [False, True])
def test_a_copy_that_is_cut_short_anywhere_goes_on(
    ledger: Path, postgres_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to_file: bool
):
    """At any batch, any write of the log, and each step of putting a file into its place."""
    monkeypatch.setattr("audit_svc.ledger.copying.BATCH_ROWS", 40)
    source: object = ledger
    target: object = postgres_database
    file = tmp_path / "target.db"
    if to_file:
        assert copy(ledger, postgres_database).exit_code == 0
        source, target = postgres_database, file
    left = 0

    def dying(do: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return do(*given, **named)

        return run

    from audit_svc.postgres.seal.log import PostgresLog
    from audit_svc.seal.files import FolderFiles

    if to_file:
        places: list[tuple[Any, str]] = [(SqliteTables, "add"), (FolderFiles, "write"), (FolderFiles, "remove")]
        places += [(FileTarget, "make_derived"), (Path, "replace")]
    else:
        places = [(PostgresTables, "add"), (PostgresLog, "run_many")]
    for place, name in places:
        monkeypatch.setattr(place, name, dying(getattr(place, name)))
    deaths, steps = 0, iter([1, 2, 3, 5, 8, 9, 4, 7, 11, 6, 10, 3, 2, 1, 4, 3, 2, 1, 2, 1, 1])
    for step in steps:
        left = step
        try:
            done = copy(source, target)
        except Killed:
            deaths += 1
            if not to_file and deaths > 1:  # the first dies before anything is there
                with (
                    closing(connect(postgres_database)) as connection,
                    pytest.raises(MigrationRefused, match=r"ask `audit-svc copy` again|older schema"),
                ):
                    migrate.refuse_older(connection)
            continue
        break
    left = 0
    if deaths == 21 or done.exit_code:
        done = copy(source, target)
    assert done.exit_code == 0 or "is a whole copy" in done.stderr, done.stderr
    assert deaths > 8
    assert differ(file if to_file else ledger, postgres_database) == []
    assert not (file.with_name("target.db.seal") / UNFINISHED).exists()


def test_another_state_of_the_source_is_no_part_of_the_same_copy(
    ledger: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch, open_writer: Callable[..., Writer]
):
    with monkeypatch.context() as patched:
        patched.setattr("audit_svc.copying.copy.copy_log", lambda *ends: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            copy(ledger, postgres_database)
    writer = open_writer(served := open_for_writing(ledger))
    writer.record(read_batch(record_request(tool_calls=[audit_row()]), NOW_MS)).result()
    writer.close()
    served.close()
    changed = copy(ledger, postgres_database)
    assert (changed.exit_code, "as it was before a service wrote to it again" in changed.stderr) == (1, True)


def test_a_row_that_was_changed_on_the_way_is_told(
    ledger: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch
):
    add = PostgresTables.add

    def changing(self: Any, table: Any, columns: Any, rows: Any, *, instead: bool) -> None:
        if table.name == "tool_call_log":
            place = columns.index("tool_name")
            rows = [(*row[:place], row[place][::-1], *row[place + 1 :]) for row in rows]
        add(self, table, columns, rows, instead=instead)

    monkeypatch.setattr(PostgresTables, "add", changing)
    told = copy(ledger, postgres_database)
    assert (told.exit_code, "does not fit its seal" in told.stderr) == (1, True), told.stderr


def test_a_copy_that_is_really_killed_goes_on(ledger: Path, postgres_database: str):
    chance = random.Random(11)
    command = [sys.executable, "-m", "audit_svc", "copy", "--from", str(ledger), "--to", postgres_database]
    longest = 6.0
    for _ in range(12):
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment({}), stderr=subprocess.PIPE, text=True)
        try:
            _, said = process.communicate(timeout=chance.uniform(0.5, longest))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            longest += 2
            continue
        was_done = "the database has rows or a seal" in said  # the one before was killed in its very last moment
        assert process.returncode == 0 or was_done, said
        break
    else:
        pytest.fail("it was never left to end")
    assert differ(ledger, postgres_database) == []
