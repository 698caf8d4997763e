"""Random changes by hand, alone and in pairs, also signed again: each is told, and an untouched ledger is not.

SEAL_TAMPERINGS: how many, 300 by default: each change, each pair of two in either order, and some again.
"""

import itertools
import os
import random
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from audit_svc.errors import AuditError
from audit_svc.ledger.erasing import Erasure
from audit_svc.seal.files import FolderFiles
from audit_svc.seal.folder import CHECKPOINT, KEY, VERIFIER, read_key, write_key
from audit_svc.seal.leaf import KINDS
from audit_svc.seal.tiles import Tiles
from audit_svc.sql.write.clock import LedgerClock
from audit_svc.sqlite.care.erase import Erase
from audit_svc.sqlite.seal import leaves
from recording.transparency.errors import TransparencyError
from recording.transparency.note import Signer, split_note
from tests.audit_svc.samples import audit_row
from tests.audit_svc.seal.conftest import Seal, rows

TAMPERINGS = int(os.environ.get("SEAL_TAMPERINGS", "300"))
pytestmark = pytest.mark.long
ROW = "erased"

Change = Callable[[random.Random, Seal, Path], None]


def write(path: Path, *statements: str) -> None:
    with closing(apsw.Connection(str(path))) as connection, connection:
        leaves.prepare(connection)
        for statement in statements:
            connection.execute(statement)


def a_place(rng: random.Random, seal: Seal) -> tuple[Any, int]:
    with closing(apsw.Connection(str(seal.database), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        found = []
        for kind in KINDS:
            positions = connection.execute(f"SELECT {kind.column('position')} FROM {kind.table}")
            found += [(kind, position) for (position,) in positions]
    return rng.choice(found)


def a_field(rng: random.Random, seal: Seal, then: Path) -> None:
    kind, position = a_place(rng, seal)
    column = rng.choice([name for name in kind.columns if name != kind.column("position")])
    at = f"WHERE {kind.column('position')} = {position}"
    number = column in set(map(kind.column, kind.numbers))
    value = f"coalesce({column}, 0) + 1" if number else f"coalesce({column}, '') || 'x'"
    if kind.name == "gap" and column == "change":
        value = "CASE change WHEN 'opened' THEN 'closed' ELSE 'opened' END"
    write(seal.database, f"UPDATE {kind.table} SET {column} = {value} {at}")


def a_row(rng: random.Random, seal: Seal, then: Path) -> None:
    kind, position = a_place(rng, seal)
    write(seal.database, f"DELETE FROM {kind.table} WHERE {kind.column('position')} = {position}")


def a_swap(rng: random.Random, seal: Seal, then: Path) -> None:
    first, second = rng.sample(range(1, 30), 2)
    write(
        seal.database,
        f"UPDATE tool_call_log SET position = -1 WHERE position = {first}",
        f"UPDATE tool_call_log SET position = {first} WHERE position = {second}",
        f"UPDATE tool_call_log SET position = {second} WHERE position = -1",
    )


def the_database_of_then(rng: random.Random, seal: Seal, then: Path) -> None:
    for suffix in ("-wal", "-shm"):
        seal.database.with_name(seal.database.name + suffix).unlink(missing_ok=True)
    shutil.copy(then / "audit.db", seal.database)


def the_checkpoint_of_then(rng: random.Random, seal: Seal, then: Path) -> None:
    """Told by who kept the last one."""
    shutil.copy(then / "seal" / CHECKPOINT, seal.folder / CHECKPOINT)


def the_seal_of_then(rng: random.Random, seal: Seal, then: Path) -> None:
    shutil.rmtree(seal.folder)
    shutil.copytree(then / "seal", seal.folder)


def a_byte_of_the_log(rng: random.Random, seal: Seal, then: Path) -> None:
    files = [path for path in seal.folder.rglob("*") if path.is_file() and "tile" in path.parts]
    # a partial tile of an earlier size is served to nobody who asks for this one
    last = Tiles(FolderFiles(seal.folder), seal.size)
    path = rng.choice([p for p in [*files, seal.folder / CHECKPOINT] if p.name == CHECKPOINT or is_read(p, last)])
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def is_read(path: Path, tiles: Tiles) -> bool:
    return not path.parent.name.endswith(".p") or int(path.name) in {
        tiles.size >> 8 * level & 255 for level in range(3) if f"/tile/{level}/" in str(path)
    }


def the_tiles_of_then(rng: random.Random, seal: Seal, then: Path) -> None:
    shutil.rmtree(seal.folder / "tile")
    shutil.copytree(then / "seal" / "tile", seal.folder / "tile")


def the_key_of_another(rng: random.Random, seal: Seal, then: Path) -> None:
    """With which its sealer would go on; what it has signed is told by who has the log's key."""
    other = Signer.new(read_key(seal.folder / KEY).name)
    write_key(seal.folder / KEY, other)
    (seal.folder / VERIFIER).write_text(f"{other.verifier}\n")
    (seal.folder / CHECKPOINT).write_text(other.sign(split_note((seal.folder / CHECKPOINT).read_text())[0]))


def signed_again(seal: Seal, key: str) -> None:
    """The log written anew with the right key, of the ledger as it is now: only an old checkpoint tells it."""
    shutil.rmtree(seal.folder)
    seal.folder.mkdir()
    (seal.folder / KEY).write_text(key)
    (seal.folder / VERIFIER).write_text(f"{read_key(seal.folder / KEY).verifier}\n")
    seal.run()


def a_run_of_the_index(rng: random.Random, seal: Seal, then: Path) -> None:
    change = rng.choice(["first_position = first_position + 1", "rows = rows - 1", "kind = 'query'"])
    write(seal.folder / "index.db", f"UPDATE runs SET {change} WHERE rowid = (SELECT max(rowid) FROM runs)")


def texts_without_an_entry(rng: random.Random, seal: Seal, then: Path) -> None:
    hashes = "json_object('args_summary', hex_sha256(CAST(salt || args_summary AS BLOB)))"
    erased = f"salt = NULL, args_summary = '[erased]', error = NULL, erased = {hashes}"
    write(
        seal.database,
        f"UPDATE tool_call_log SET {erased} WHERE error IS NULL AND erased IS NULL AND position > {rng.randint(1, 99)}",
    )


def an_entry_without_erasure(rng: random.Random, seal: Seal, then: Path) -> None:
    place = f"(SELECT position FROM tool_call_log WHERE erased IS NULL AND position >= {rng.randint(1, 300)} LIMIT 1)"
    write(
        seal.database,
        "INSERT INTO erasure_log (erased_kind, first_position, last_position, erased_by, reason, recorded_at) "
        f"VALUES ('tool_call', {place}, {place}, 'mallory', 'x', 1)",
    )


def an_erased_text_that_comes_back(rng: random.Random, seal: Seal, then: Path) -> None:
    write(seal.database, "UPDATE tool_call_log SET args_summary = 'ls', erased = NULL WHERE erased IS NOT NULL")


def a_hold_removed(rng: random.Random, seal: Seal, then: Path) -> None:
    write(seal.database, "DELETE FROM hold_log WHERE act = 'placed'")


CHANGES: tuple[Change, ...] = (
    *(a_field, a_row, a_swap, the_database_of_then, the_checkpoint_of_then, the_seal_of_then, the_tiles_of_then),
    *(a_byte_of_the_log, a_run_of_the_index, the_key_of_another),
    *(texts_without_an_entry, an_entry_without_erasure, an_erased_text_that_comes_back, a_hold_removed),
)
PAIRS = random.Random(0).sample(pairs := list(itertools.permutations(CHANGES, 2)), len(pairs))
CHOSEN: list[tuple[Change, ...]] = [*((change,) for change in CHANGES), *PAIRS]


@pytest.fixture
def sealed(seal: Seal, record: Callable[..., None], writer: Any, connection: Any, tmp_path: Path) -> tuple[Seal, Path]:
    """A seal, and the folder with what it was before its last rows."""
    record(**rows(40), last=3)
    record(tool_calls=[audit_row(id=ROW, args_summary="ls -l", error="none")])
    write(
        seal.database,
        "INSERT INTO query_log (caller, method, filters, rows, duration_ms, status, created_at) "
        "VALUES ('ada', 'ListToolCalls', '{}', 1, 2, 'OK', 3)",
        "INSERT INTO hold_log (act, name, filter, acted_by, reason, recorded_at) "
        """VALUES ('placed', 'case', '{"calls": {"session_id": "nobody"}}', 'ada', 'x', 1)""",
    )
    erase = Erase(Erasure("ada", "asked to", row_id=ROW), LedgerClock(connection))
    while not writer.run(erase.step).result().done:
        pass
    seal.run()
    writer.run(lambda connection: None).result()
    then = tmp_path / "then"
    then.mkdir()
    with closing(apsw.Connection(str(seal.database))) as connection:
        connection.execute(f"VACUUM INTO '{then / 'audit.db'}'")
    shutil.copytree(seal.folder, then / "seal")
    record(tool_calls=[audit_row() for _ in range(300)], last=5)
    seal.size = seal.run()
    writer.close()
    return seal, then


def test_each_change_is_told_and_nothing_else(sealed: tuple[Seal, Path], tmp_path: Path):
    seal, then = sealed
    kept = tmp_path / "kept-checkpoint"
    shutil.copy(seal.folder / CHECKPOINT, kept)
    key = str(read_key(seal.folder / KEY).verifier)
    whole = tmp_path / "whole"
    shutil.copytree(seal.folder, whole / "seal")
    for path in seal.database.parent.glob("audit.db*"):
        if path.is_file():
            shutil.copy(path, whole / path.name)
    assert not seal.verify(kept, key=key).problems
    signing = (seal.folder / KEY).read_text()
    told = 0
    for number in range(TAMPERINGS):
        rng = random.Random(number)
        chosen, again = CHOSEN[number % len(CHOSEN)], rng.random() < 1 / 3
        names = [change.__name__ for change in chosen] + ["signed again"] * again
        try:
            for change in chosen:
                change(rng, seal, then)
            if again:
                signed_again(seal, signing)
        except (AuditError, TransparencyError, apsw.Error, OSError):
            pass  # the second could not be made after the first, or nothing could be sealed
        else:
            with suppress(AuditError):  # it says that nothing can be said
                assert seal.verify(kept, key=key).problems, (number, names)
            told += 1
        shutil.rmtree(seal.folder)
        shutil.copytree(whole / "seal", seal.folder)
        for path in seal.database.parent.glob("audit.db*"):
            if path.is_file():
                path.unlink()
        for path in whole.glob("audit.db*"):
            shutil.copy(path, seal.database.with_name(path.name))
    assert not seal.verify(kept, key=key).problems
    assert told > TAMPERINGS * 3 // 4
