"""Random changes by the owner of the database, alone and in pairs: each is told, and an untouched ledger is not.

Each is made, looked at and taken back in one transaction. SEAL_TAMPERINGS: how many, 100 by default.
"""

import os
import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from audit_svc.errors import AuditError, StoreUnavailable
from audit_svc.ledger.erasing import Erasure
from audit_svc.postgres.open.connection import Connection, connect
from audit_svc.postgres.seal.ledger import PostgresSealedLedger
from audit_svc.postgres.seal.log import PostgresLog
from audit_svc.postgres.store import PostgresLedger
from audit_svc.seal.folder import CHECKPOINT, read_key
from audit_svc.seal.leaf import KINDS
from audit_svc.seal.sealer import Sealer
from audit_svc.seal.tiles import Tiles
from audit_svc.seal.verify import Report, verify
from audit_svc.sealing.places import PostgresPlace, open_sealer
from recording.transparency.errors import TransparencyError
from tests.audit_svc.samples import audit_row, batch
from tests.audit_svc.seal.conftest import rows

TAMPERINGS = int(os.environ.get("SEAL_TAMPERINGS", "100"))
pytestmark = [pytest.mark.postgres, pytest.mark.long]
SEAL = ("seal_files", "seal_runs", "seal_entries", "seal_producers")
LEDGER = tuple(sorted({kind.table for kind in KINDS} | {"sessions", "session_labels", "producers", "producer_gaps"}))


class InsideLedger(PostgresSealedLedger):
    """Reads what a transaction has changed, which is not committed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def close(self) -> None:
        """The connection goes on."""


class InsideLog(PostgresLog):
    """The same of the log."""

    def __init__(self, connection: Connection) -> None:
        super().__init__("")
        self._opened = connection

    def close(self) -> None:
        """The connection goes on."""


class Owner:
    """What the owner of the database can do, in the open transaction."""

    def __init__(self, connection: Connection, key_file: Path, kept: Path, size: int) -> None:
        self.connection, self.key_file, self.kept, self.size = connection, key_file, kept, size

    def all(self, sql: str) -> list[Any]:
        return self.connection.raw.execute(sql.encode()).fetchall()

    def write(self, *statements: str) -> None:
        for statement in statements:
            self.connection.raw.execute(statement.encode())

    def put_back(self, *tables: str) -> None:
        """What tables were before the last rows."""
        for table in tables:
            self.write(f"DELETE FROM {table}", f"INSERT INTO {table} TABLE past.{table}")

    def verify(self) -> Report:
        ledger, log = InsideLedger(self.connection), InsideLog(self.connection)
        with ledger.moment():
            return verify(ledger, log, read_key(self.key_file).verifier, [self.kept])

    def seal(self) -> None:
        with Sealer(InsideLedger(self.connection), InsideLog(self.connection), self.key_file, "") as sealer:
            while sealer.step():
                pass


Change = Callable[[random.Random, Owner], None]


def a_place(rng: random.Random, owner: Owner) -> tuple[Any, int]:
    found = []
    for kind in KINDS:
        places = owner.all(f"SELECT {kind.column('position')} FROM {kind.table} ORDER BY 1")
        found += [(kind, place) for (place,) in places]
    return rng.choice(found)


def a_field(rng: random.Random, owner: Owner) -> None:
    kind, place = a_place(rng, owner)
    column = rng.choice([name for name in kind.columns if name != kind.column("position")])
    number = column in set(map(kind.column, kind.numbers))
    value = f"coalesce({column}, 0) + 1" if number else f"coalesce({column}, '') || 'x'"
    for name, one, other in (("change", "opened", "closed"), ("act", "placed", "lifted")):
        if column == name:
            value = f"CASE {name} WHEN '{one}' THEN '{other}' ELSE '{one}' END"
    owner.write(f"UPDATE {kind.table} SET {column} = {value} WHERE {kind.column('position')} = {place}")


def a_row(rng: random.Random, owner: Owner) -> None:
    kind, place = a_place(rng, owner)
    owner.write(f"DELETE FROM {kind.table} WHERE {kind.column('position')} = {place}")


def a_swap(rng: random.Random, owner: Owner) -> None:
    first, second = rng.sample(range(1, 30), 2)
    for old, new in ((first, -1), (second, first), (-1, second)):
        owner.write(f"UPDATE tool_call_log SET position = {new} WHERE position = {old}")


def the_rows_of_then(rng: random.Random, owner: Owner) -> None:
    owner.put_back(*LEDGER)


def the_checkpoint_of_then(rng: random.Random, owner: Owner) -> None:
    past = f"(SELECT data FROM past.seal_files WHERE path = '{CHECKPOINT}')"
    owner.write(f"UPDATE seal_files SET data = {past} WHERE path = '{CHECKPOINT}'")


def the_seal_of_then(rng: random.Random, owner: Owner) -> None:
    owner.put_back(*SEAL)


def a_byte_of_the_log(rng: random.Random, owner: Owner) -> None:
    paths = [path for (path,) in owner.all("SELECT path FROM seal_files WHERE path LIKE 'tile/%' ORDER BY path")]
    path = rng.choice([CHECKPOINT, *(path for path in paths if is_read(path, owner.size))])
    ((length,),) = owner.all(f"SELECT length(data) FROM seal_files WHERE path = '{path}'")
    at, bit = rng.randrange(length), 1 << rng.randrange(8)
    owner.write(
        f"UPDATE seal_files SET data = set_byte(data, {at}, get_byte(data, {at}) # {bit}) WHERE path = '{path}'"
    )


def is_read(path: str, size: int) -> bool:
    """A partial tile of an earlier size is served to nobody who asks for this one."""
    folder, _, width = path.rpartition("/")
    level = int(path.split("/")[1])
    return not folder.endswith(".p") or int(width) == size >> 8 * level & 255


def the_log_written_anew(rng: random.Random, owner: Owner) -> None:
    """With the right key, of a ledger without one row: only an old checkpoint tells it."""
    owner.write(f"DELETE FROM tool_call_log WHERE position = {rng.randint(1, 20)}")
    owner.write(*(f"DELETE FROM {table}" for table in SEAL))
    owner.seal()


def a_run_of_the_index(rng: random.Random, owner: Owner) -> None:
    change = rng.choice(["first_position = first_position + 1", "rows = rows - 1", "kind = 'query'"])
    owner.write(f"UPDATE seal_runs SET {change} WHERE first_index = (SELECT max(first_index) FROM seal_runs)")


def texts_without_an_entry(rng: random.Random, owner: Owner) -> None:
    hash_ = "encode(sha256(coalesce(salt, ''::bytea) || convert_to(args_summary, 'UTF8')), 'hex')"
    erased = f"erased = json_build_object('args_summary', {hash_})::text, salt = NULL, args_summary = '[erased]'"
    where = f"error IS NULL AND erased IS NULL AND position > {rng.randint(1, 99)}"
    owner.write(f"UPDATE tool_call_log SET {erased} WHERE {where}")


def an_entry_without_erasure(rng: random.Random, owner: Owner) -> None:
    place = f"(SELECT min(position) FROM tool_call_log WHERE erased IS NULL AND position >= {rng.randint(1, 300)})"
    owner.write(
        "INSERT INTO erasure_log (erased_kind, first_position, last_position, erased_by, reason, recorded_at) "
        f"VALUES ('tool_call', {place}, {place}, 'mallory', 'x', 1)"
    )


def an_erased_text_that_comes_back(rng: random.Random, owner: Owner) -> None:
    owner.write("UPDATE tool_call_log SET args_summary = 'ls', erased = NULL WHERE erased IS NOT NULL")


def a_hold_removed(rng: random.Random, owner: Owner) -> None:
    owner.write("DELETE FROM hold_log WHERE act = 'placed'")


CHANGES: tuple[Change, ...] = (
    *(a_field, a_field, a_row, a_swap, the_rows_of_then, the_checkpoint_of_then, the_seal_of_then),
    *(a_byte_of_the_log, a_run_of_the_index, the_log_written_anew),
    *(texts_without_an_entry, an_entry_without_erasure, an_erased_text_that_comes_back, a_hold_removed),
)


async def fill(url: str) -> None:
    """Rows of every kind, an erased text and a hold."""
    ledger = PostgresLedger.open(url, queue_rows=10_000)
    try:
        fields = rows(40)
        calls = fields.pop("tool_calls")
        await ledger.record(batch(*calls, **fields))
        await ledger.record(batch(audit_row(id="erased", args_summary="ls -l", error="none")))
        async for _ in ledger.erase(Erasure("ada", "asked to", row_id="erased")):
            pass
    finally:
        await ledger.close()


async def add(url: str) -> None:
    """What comes after the moment that is put back."""
    ledger = PostgresLedger.open(url, queue_rows=10_000)
    await ledger.record(batch(*(audit_row() for _ in range(300))))
    await ledger.close()


async def test_each_change_is_told_and_nothing_else(migrated: Connection, postgres_database: str, tmp_path: Path):
    place, key_file, kept = PostgresPlace(postgres_database), tmp_path / "key", tmp_path / "kept"

    def seal() -> int:
        with open_sealer(place, key_file, "ledger.example.com/test") as sealer:
            while sealer.step():
                pass
            return sealer.size

    await fill(postgres_database)
    migrated.raw.execute(
        "INSERT INTO query_log (caller, method, filters, rows, duration_ms, status, created_at) "
        "VALUES ('ada', 'ListToolCalls', '{}', 1, 2, 'OK', 3); "
        "INSERT INTO hold_log (act, name, filter, acted_by, reason, recorded_at) "
        """VALUES ('placed', 'case', '{"calls": {"session_id": "nobody"}}', 'ada', 'x', 1); """
        "INSERT INTO gap_log (change, producer_id, recorded_by, first_sequence, last_sequence, recorded_at) "
        "VALUES ('opened', 'p', '', 2, 4, 1)"
    )
    seal()
    migrated.raw.execute("CREATE SCHEMA past")
    for table in (*SEAL, *LEDGER):
        migrated.raw.execute(f"CREATE TABLE past.{table} AS TABLE public.{table}".encode())
    await add(postgres_database)
    size = seal()
    with closing(place.open_log()) as log:
        kept.write_bytes(log.read(CHECKPOINT) or b"")
        assert Tiles(log, size).size == size
    with closing(connect(postgres_database, writes=True)) as connection:
        owner = Owner(connection, key_file, kept, size)
        assert not owner.verify().problems
        made = 0
        for number in range(TAMPERINGS):
            with connection.raw.transaction(force_rollback=True):
                made += tamper(number, owner)
        assert made > TAMPERINGS * 3 // 4
        assert not owner.verify().problems


def tamper(number: int, owner: Owner) -> bool:
    """Whether the change could be made; then it is told."""
    rng = random.Random(number)
    chosen = rng.sample(CHANGES, rng.choice([1, 1, 2]))
    try:
        with owner.connection.raw.transaction():
            for change in chosen:
                change(rng, owner)
    except (AuditError, TransparencyError, psycopg.Error):
        return False  # the second could not be made after the first
    try:
        told = bool(owner.verify().problems)
    except StoreUnavailable:
        raise
    except AuditError:
        told = True  # it says that nothing can be said
    assert told, (number, [change.__name__ for change in chosen])
    return True
