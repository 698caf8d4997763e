"""What was sealed is there as it was, or somebody is told."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.__main__ import program
from audit_svc.seal import leaf
from audit_svc.seal.errors import BadLog, InUse, Rewritten, SealError
from audit_svc.seal.files import FolderFiles
from audit_svc.seal.folder import CHECKPOINT, KEY, VERIFIER, read_verifier
from audit_svc.seal.tiles import Tiles, TileWriter
from audit_svc.sealing.places import DATABASE
from audit_svc.sql.write.clock import LedgerClock
from audit_svc.sqlite.care.prune import Prune
from audit_svc.sqlite.seal import leaves
from audit_svc.sqlite.seal.index import FolderIndex
from recording.held_folder import LOCK
from recording.transparency.errors import BadKey, BadNote
from recording.transparency.proof import Proof
from tests.audit_svc.samples import NOW_MS, audit_row
from tests.audit_svc.seal.conftest import Seal, rows
from tests.support.command_line import invoke

Record = Callable[..., None]
TABLES = ("tool_call_log", "cost_log", "session_log")


def change(database: Path, *statements: str) -> None:
    """What somebody does who can write to the file."""
    with closing(apsw.Connection(str(database))) as connection, connection:
        leaves.prepare(connection)
        for statement in statements:
            connection.execute(statement)


def test_every_kind_of_row_is_sealed_and_verified(seal: Seal, record: Record):
    record(**rows(40))
    assert seal.run() == 40 + 20 + 10
    record(**rows(8), last=3)  # numbers 1 and 2 never came: a gap
    change(
        seal.database,
        "INSERT INTO query_log (caller, method, filters, rows, duration_ms, status, created_at) "
        "VALUES ('ada', 'ListToolCalls', '{}', 1, 2, 'OK', 3)",
    )
    assert seal.run() == 70 + 8 + 4 + 1 + 1, "revisions that are there already are no new ones"
    report = seal.verify()
    assert (report.problems, report.rows, report.unsealed) == ([], 84, {})
    record(tool_calls=[audit_row()])
    assert seal.verify().unsealed == {"tool_call": 1}


def test_a_leaf_has_every_column_of_its_table(connection: Any):
    for kind in leaf.KINDS:
        columns = {name for _, name, *_ in connection.execute(f"PRAGMA table_info({kind.table})")}
        assert set(kind.columns) == columns - set(leaf.BESIDE), (
            f"{kind.name} has other columns: give its leaf a new version"
        )


@given(st.dictionaries(st.sampled_from("abcdef"), st.text() | st.none()))
def test_leaves_are_what_another_encoder_of_rfc_8785_writes(said: dict[str, Any]):
    assert leaf.canonical(said) == rfc8785.dumps(said)


@given(text=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0")))
def test_sqlite_and_python_write_the_same_leaf(text: str):
    kind = leaf.BY_NAME["removal"]
    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute(f"CREATE TABLE removal_log ({', '.join(kind.columns)})")
        row = dict.fromkeys(kind.columns, 2**63 - 1) | {"removed_kind": text, "pruned_by": None}
        connection.execute(
            f"INSERT INTO removal_log ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values())
        )
        ((_, said),) = connection.execute(leaves.select(kind, "true")).fetchall()
    assert str(said).encode() == kind.encode(row)


CHANGES = {
    "a field": "UPDATE {table} SET recorded_by = 'mallory' WHERE position = {at}",
    "a text": "UPDATE tool_call_log SET args_summary = '{{}}' WHERE position = {at}",
    "a salt": "UPDATE tool_call_log SET salt = randomblob(16) WHERE position = {at}",
    "a number": "UPDATE cost_log SET cost_micros = 1 WHERE position = {at}",
    "null": "UPDATE tool_call_log SET exit_code = NULL WHERE position = {at}",
    "a removal": "DELETE FROM {table} WHERE position = {at}",
    "a session": "UPDATE sessions SET turns = turns + 1 WHERE id = 'session-1'",
    "a label": "UPDATE session_labels SET value = 'x' WHERE session_id = 'session-1' AND key = 'team'",
}


@pytest.mark.parametrize("what", list(CHANGES))
def test_a_change_by_hand_is_told_with_its_place(seal: Seal, record: Record, what: str):
    record(**rows(40))
    seal.run()
    chosen = random.Random(what)
    table, at = chosen.choice(TABLES), chosen.randint(1, 10)
    change(seal.database, CHANGES[what].format(table=table, at=at))
    (problem,) = seal.verify().problems
    assert "session" in problem if what in {"a session", "a label"} else f" {at} " in problem


@pytest.mark.parametrize("is_labelled", [True, False])
@pytest.mark.parametrize(
    "changed",
    [
        "UPDATE sessions SET tool_calls = 1 WHERE id = 'others'",
        "UPDATE sessions SET revision = 1 WHERE id = 'others'",
        "INSERT INTO session_labels VALUES ('others', '', 'team', 'x')",
        "",
    ],
)
def test_a_session_that_the_ledger_sums_up_is_held_to_its_rows_and_labels(
    seal: Seal, record: Record, changed: str, is_labelled: bool
):
    labelled = audit_pb2.SessionRow(id="others", labels={"branch": "main"}, created_at_ms=NOW_MS, updated_at_ms=NOW_MS)
    record(
        tool_calls=[audit_row(session_id="others", source=common_pb2.SOURCE_OTLP) for _ in range(2)],
        sessions=[labelled] if is_labelled else [],
    )
    seal.run()
    if changed:
        change(seal.database, changed)
    told = [problem for problem in seal.verify().problems if "session 'others'" in problem]
    assert len(told) == bool(changed)


def test_two_rows_that_change_places_are_told(seal: Seal, record: Record):
    record(**rows(8))
    seal.run()
    change(
        seal.database,
        "UPDATE tool_call_log SET position = -1 WHERE position = 3",
        "UPDATE tool_call_log SET position = 3 WHERE position = 4",
        "UPDATE tool_call_log SET position = 4 WHERE position = -1",
    )
    assert len(seal.verify().problems) == 2


def test_a_row_that_is_put_among_sealed_ones_is_told(seal: Seal, record: Record):
    record(**rows(8))
    change(seal.database, "UPDATE tool_call_log SET position = position + 100 WHERE position > 4")
    seal.run()
    assert not seal.verify().problems
    change(
        seal.database,
        "CREATE TABLE x AS SELECT * FROM tool_call_log WHERE position = 1",
        "UPDATE x SET position = 50, id = 'forged'",
        "INSERT INTO tool_call_log SELECT * FROM x",
        "DROP TABLE x",
    )
    assert seal.verify().problems == ["tool_call 50 stands between sealed rows and was never sealed: it was added"]


def test_rows_are_not_compared_with_a_log_that_is_wrong(seal: Seal, record: Record):
    record(**rows(8))
    seal.run()
    assert seal.verify().compared
    for tile in (seal.folder / "tile" / "0").rglob("*"):
        if tile.is_file():
            tile.unlink()
    report = seal.verify()
    assert (report.compared, len(report.problems)) == (False, 1), "that none is as it was sealed is not said"


def test_pruned_rows_may_be_gone_and_no_others(seal: Seal, record: Record, connection: Any, writer: Any):
    record(**rows(8))
    record(tool_calls=[audit_row(created_at_ms=NOW_MS - 9 * 3_600_000) for _ in range(5)], sessions=[])
    record(**rows(4))
    seal.run()
    prune = Prune(NOW_MS // 3_600_000 * 3_600_000 - 2 * 3_600_000, "ada", LedgerClock(connection))
    while not writer.run(prune.step).result().done:
        pass
    seal.run()
    report = seal.verify()
    assert (report.problems, report.removed) == ([], 5)
    change(seal.database, "DELETE FROM tool_call_log WHERE position = 2")
    assert seal.verify().problems == ["tool_call 2 was sealed and is not there: removed"]


def test_a_removal_that_somebody_writes_down_excuses_only_what_was_sealed_before_it(seal: Seal, record: Record):
    record(**rows(8))
    seal.run()
    change(
        seal.database,
        "DELETE FROM tool_call_log WHERE position = 2",
        "INSERT INTO removal_log (removed_kind, first_position, last_position, pruned_before, pruned_by, recorded_at) "
        "VALUES ('tool_call', 2, 2, 0, 'mallory', 0)",
    )
    report = seal.verify()
    assert report.removed == 1, "what a removal says is in the log from the next round on, with a name"
    assert report.unsealed == {"removal": 1}


@pytest.mark.parametrize("file", ["tile/0/000.p/70", "checkpoint"])
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_a_file_of_the_log_that_was_changed_or_is_missing_is_told(seal: Seal, record: Record, file: str, how: str):
    record(**rows(40))
    seal.run()
    path = seal.folder / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink() if how == "missing" else path.write_bytes(data)
    if (file, how) == ("checkpoint", "missing"):
        with pytest.raises(SealError, match="no checkpoint"):
            seal.verify()
    else:
        assert len(seal.verify().problems) == 1


def test_an_index_that_says_otherwise_is_told(seal: Seal, record: Record):
    record(**rows(8))
    record(**rows(8))
    seal.run()
    change(seal.folder / "index.db", "UPDATE runs SET first_position = 2 WHERE kind = 'model_request'")
    assert seal.verify().problems
    change(seal.folder / "index.db", "DELETE FROM runs")
    assert seal.verify().problems == ["the index does not say what leaf 0 is of"]


def test_a_log_that_was_rolled_back_with_its_ledger_is_told_by_who_kept_a_checkpoint(
    seal: Seal, record: Record, tmp_path: Path
):
    record(**rows(8))
    seal.run()
    shutil.copytree(seal.folder, tmp_path / "then")
    shutil.copy(seal.database, tmp_path / "then.db")
    record(**rows(8))
    seal.run()
    kept = tmp_path / "kept"
    shutil.copy(seal.folder / CHECKPOINT, kept)
    assert not seal.verify(kept).problems
    shutil.rmtree(seal.folder)
    shutil.copytree(tmp_path / "then", seal.folder)
    (problem,) = seal.verify(kept).problems
    assert "rolled back" in problem


def test_a_restored_ledger_is_sealed_on_only_after_somebody_says_so(seal: Seal, record: Record, tmp_path: Path):
    record(**rows(8))
    seal.run()
    # as a restore leaves it: rows that were sealed are gone, and others take their positions
    change(seal.database, "DELETE FROM tool_call_log WHERE position > 5", "DELETE FROM cost_log WHERE position > 3")
    with pytest.raises(Rewritten, match="position 8 was sealed and is gone"):
        seal.run()
    record(**rows(8))
    with pytest.raises(Rewritten, match="position 8 was sealed and is another"):
        seal.run()
    with seal.open() as sealer:
        restore = sealer.accept_restore("the disk died", "ada")
    assert {kind: lost for kind, lost in restore.lost.items() if lost} == {"tool_call": 3, "model_request": 1}
    seal.run()
    report = seal.verify()
    assert (report.problems, report.lost) == ([], 4)
    record(**rows(4))
    seal.run()
    assert not seal.verify().problems
    change(seal.database, "UPDATE tool_call_log SET tool_name = 'x' WHERE position = 7")
    assert len(seal.verify().problems) == 1


def test_a_proof_is_checked_without_the_ledger(seal: Seal, record: Record):
    record(**rows(40))
    size = seal.run()
    verifier = read_verifier(str(seal.folder / VERIFIER))
    with closing(seal.place.open_ledger()) as ledger:
        said = ledger.leaf_at(leaf.BY_NAME["tool_call"], 9)
    assert said
    made = Proof.make(said, 8, Tiles(FolderFiles(seal.folder), size), (seal.folder / CHECKPOINT).read_text())
    read = Proof.parse(str(made))
    assert read == made
    assert read.check(verifier).size == size
    forged = Proof.parse(str(made))
    with pytest.raises(BadNote, match="does not stand at leaf 8"):
        Proof(said.replace(b"ollama", b"openai"), forged.index, forged.hashes, forged.note).check(verifier)
    with pytest.raises(BadNote, match="does not stand at leaf 9"):
        Proof(forged.leaf, 9, forged.hashes, forged.note).check(verifier)


def test_one_process_seals_into_a_folder(seal: Seal):
    with seal.open(), pytest.raises(InUse, match="another process"):
        seal.open()


def test_what_is_said_beside_a_sealer_is_of_the_checkpoint_whatever_is_written_behind_it(seal: Seal, record: Record):
    """A round writes its runs before its checkpoint: whoever looks at that moment sees the ones without the other."""
    record(**rows(8))
    before = seal.run()
    older = (seal.folder / CHECKPOINT).read_bytes()
    record(**rows(300))
    waiting = seal.run() - before
    (seal.folder / CHECKPOINT).write_bytes(older)
    said = invoke(program, ["seal", "status", "--db", str(seal.database), "--seal", str(seal.folder), "--json"])
    assert said.exit_code == 0, said.stderr
    status = json.loads(said.stdout)
    assert (status["leaves"], status["waiting"], status["trouble"]) == (before, waiting, "")


def test_whoever_cleans_lock_files_away_lets_nobody_in(seal: Seal):
    with seal.open():
        (seal.folder / LOCK).unlink()
        with pytest.raises(InUse, match="another process seals"):
            seal.open()


def test_a_folder_that_was_moved_under_its_sealer_is_not_made_again(seal: Seal, record: Record, tmp_path: Path):
    record(**rows(8))
    with seal.open() as sealer:
        sealer.step()
        moved = seal.folder.rename(tmp_path / "moved")
        record(tool_calls=[audit_row()])
        with pytest.raises(BadLog, match="moved or removed"):
            sealer.step()
    assert not seal.folder.exists()
    moved.rename(seal.folder)
    seal.run()
    assert (seal.verify().problems, seal.verify().unsealed) == ([], {})


def test_files_that_were_put_back_under_a_sealer_are_not_written_over(seal: Seal, record: Record, tmp_path: Path):
    record(**rows(8))
    with seal.open() as sealer:
        older = (seal.folder / CHECKPOINT).read_bytes()
        sealer.step()
        (seal.folder / CHECKPOINT).write_bytes(older)
        record(tool_calls=[audit_row()])
        with pytest.raises(InUse, match="is not the one"):
            sealer.step()
        assert (seal.folder / CHECKPOINT).read_bytes() == older


def test_a_log_whose_key_is_missing_is_not_begun_anew(seal: Seal, record: Record):
    record(**rows(4))
    seal.run()
    (seal.folder / KEY).unlink()
    with pytest.raises(BadKey, match="is missing"):
        seal.run()


@pytest.mark.long
def test_a_sealer_that_is_killed_at_any_write_leaves_a_log_that_goes_on(
    seal: Seal, record: Record, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        pass

    left = 0

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def write_or_die(*args: Any, **given: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return write(*args, **given)

        return write_or_die

    for place, name in ((os, "fsync"), (Path, "replace"), (Path, "mkdir"), (FolderIndex, "add"), (TileWriter, "sign")):
        monkeypatch.setattr(place, name, dying(getattr(place, name)))
    deaths = 0
    for at in range(1, 60):
        record(tool_calls=[audit_row() for _ in range(17)])
        left = 1 + at % 12
        try:
            seal.run()
        except Killed:
            deaths += 1
        left = 0
        assert seal.run() == 17 * at
        assert not seal.verify().problems
    assert deaths > 30


KILLED = """
import os, signal, sys
from pathlib import Path
from audit_svc.sealing import __main__ as sealing
from audit_svc.sqlite.seal.index import FolderIndex

left = int(sys.argv[1])

def killed_in(place, name):
    real = getattr(place, name)
    def run(*args, **given):
        global left
        left -= 1
        if left == 0:
            if name == "write":
                real(args[0], args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **given)
    setattr(place, name, run)

for name in ("open", "fdopen", "write", "fsync", "link"):
    killed_in(os, name)
for place, name in ((Path, "replace"), (Path, "mkdir"), (Path, "unlink"), (FolderIndex, "add")):
    killed_in(place, name)
sealing.give_way = lambda: None
sealing.main(*sys.argv[2:])
"""


def is_killed(seal: Seal, at: int) -> bool:
    """Seals in a process that gets SIGKILL in one of its writes, by its number; a write is cut in half."""
    arguments = [str(at), str(seal.folder), str(seal.folder / KEY), "ledger.example.com/test", "60"]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        env=os.environ | {DATABASE: str(seal.database)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=False,
    ).returncode
    assert ended in {0, -signal.SIGKILL}
    return ended != 0


@pytest.mark.long
@pytest.mark.parametrize("has_begun", [False, True], ids=["its first", "a later"])
def test_a_sealing_process_that_gets_sigkill_in_any_write_of_a_start_leaves_a_log_that_goes_on(
    seal: Seal, record: Record, tmp_path: Path, has_begun: bool
):
    deaths, dies = 0, True
    while dies:
        if not has_begun:
            seal = Seal(seal.database, tmp_path / f"seal-{deaths}")
        record(tool_calls=[audit_row() for _ in range(3)])
        dies = is_killed(seal, deaths + 1)
        deaths += dies
        assert seal.run() == 3 * (deaths + (not dies))
        assert (seal.verify().problems, seal.verify().unsealed) == ([], {})
    assert deaths > 15


def test_a_log_without_its_checkpoint_is_not_begun_anew(seal: Seal, record: Record):
    record(**rows(8))
    seal.run()
    change(seal.database, "UPDATE tool_call_log SET tool_name = 'x' WHERE position = 2")
    (seal.folder / CHECKPOINT).unlink()
    with pytest.raises(BadLog, match="has a log and no checkpoint"):
        seal.run()
    (seal.folder / "index.db").unlink()
    with pytest.raises(BadLog, match="has a log and no checkpoint"):
        seal.run()


def test_a_session_that_is_removed_is_told(seal: Seal, record: Record):
    record(**rows(16))
    seal.run()
    change(
        seal.database,
        "DELETE FROM sessions WHERE id = 'session-1'",
        "DELETE FROM session_labels WHERE session_id = 'session-1'",
    )
    assert seal.verify().problems == ["session 'session-1' has sealed revisions and is not there: it was removed"]


def test_a_restore_that_lost_nothing_is_on_the_log_too(seal: Seal, record: Record):
    record(**rows(8))
    size = seal.run()
    with seal.open() as sealer:
        assert not any(sealer.accept_restore("none", "ada").lost.values())
    assert seal.run() == size + 1


def test_a_start_that_fails_leaves_nothing_open(seal: Seal, record: Record):
    record(**rows(4))
    seal.run()
    (seal.folder / "index.db").unlink()

    def opened() -> list[str]:
        found = []
        for path in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # that of the listing itself
                found.append(str(path.readlink()))
        return sorted(path for path in found if str(seal.folder) in path or str(seal.database) in path)

    before = opened()
    with pytest.raises(BadLog, match="the index") as failed:
        seal.open()
    assert opened() == before
    del failed  # whose frames held what the start had opened
