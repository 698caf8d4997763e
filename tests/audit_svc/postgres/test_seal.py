"""The seal of a ledger in PostgreSQL: the same leaves, a log in tables, and sealers that get in each other's way."""

import random
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit_svc.errors import Damaged, StoreUnavailable
from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.copying import TABLES, copy_tables, differences
from audit_svc.postgres.copying import PostgresTables
from audit_svc.postgres.open.connection import Connection, connect
from audit_svc.postgres.seal.log import PostgresLog
from audit_svc.seal import leaf
from audit_svc.seal.copying import copy_log
from audit_svc.seal.errors import BadLog, InUse, NotSealed, Rewritten
from audit_svc.seal.folder import CHECKPOINT, KEY, own_verifier
from audit_svc.seal.outside.cosigned import Cosigned
from audit_svc.seal.outside.policy import read_policy
from audit_svc.seal.outside.quorum import roots_of
from audit_svc.seal.outside.stamps import Stamps, read_authorities, request_for
from audit_svc.seal.proving import prove, rows_of
from audit_svc.seal.reader import SealReader
from audit_svc.seal.sealer import Sealer
from audit_svc.seal.tiles import Tiles
from audit_svc.seal.verify import Report, verify
from audit_svc.sealing.places import PostgresPlace, open_sealer
from audit_svc.sqlite.copying import SqliteTables
from audit_svc.sqlite.open.connection import open_for_reading
from audit_svc.sqlite.seal.folder_log import FolderLog
from audit_svc.sqlite.seal.ledger import SqliteSealedLedger
from audit_svc.sqlite.write.writer import Writer
from recording.transparency import tree
from recording.transparency.cosignature import Cosigner
from recording.transparency.errors import BadKey
from recording.transparency.note import split_note
from tests.audit_svc.samples import NOW_MS, audit_row, record_request
from tests.audit_svc.seal.conftest import rows
from tests.audit_svc.seal.scripted_authority import Certificates, ScriptedAuthority

pytestmark = pytest.mark.postgres
Record = Callable[..., None]


class PostgresSeal:
    """A ledger in PostgreSQL, and its seal."""

    def __init__(self, url: str, connection: Connection, folder: Path, database: Path) -> None:
        self.place = PostgresPlace(url)
        self.connection = connection
        self.key = folder / KEY
        self.database = database

    def copy(self) -> None:
        """What SQLite's ledger has more since it was copied last, and all that changes in place."""
        for table in TABLES:
            if not table.name.endswith("_log"):
                self.change(f"DELETE FROM {table.name}")
        with closing(open_for_reading(self.database)) as connection:
            copy_tables(SqliteTables(connection, self.database), PostgresTables(self.connection), lambda copied: None)

    def open(self) -> Sealer:
        return open_sealer(self.place, self.key, "ledger.example.com/test")

    def run(self) -> int:
        with self.open() as sealer:
            while sealer.step():
                pass
            return sealer.size

    def change(self, statement: str) -> None:
        """What the database's owner does."""
        self.connection.raw.execute(statement.encode())

    def verify(self, *old: Path) -> Report:
        with closing(self.place.open_ledger()) as ledger, closing(self.place.open_log()) as log:
            return verify(ledger, log, own_verifier(log), list(old))


@pytest.fixture
def seal(migrated: Connection, postgres_database: str, tmp_path: Path, writer: Any, database: Path) -> PostgresSeal:
    return PostgresSeal(postgres_database, migrated, tmp_path / "keys", database)


@pytest.fixture
def record(writer: Writer) -> Record:
    def record_all(**fields: Any) -> None:
        writer.record(read_batch(record_request(**fields), NOW_MS)).result()

    return record_all


@pytest.fixture
def filled(seal: PostgresSeal, record: Record) -> PostgresSeal:
    record(**rows(40), last=3)
    seal.copy()
    with closing(open_for_reading(seal.database)) as connection:
        assert not differences(SqliteTables(connection, seal.database), PostgresTables(seal.connection))
    return seal


def test_leaves_of_a_ledger_are_alike_in_both_stores(filled: PostgresSeal, database: Path):
    with (
        closing(SqliteSealedLedger.open(database)) as sqlite,
        closing(filled.place.open_ledger()) as postgres,
        sqlite.moment(),
        postgres.moment(),
    ):
        for kind in leaf.KINDS:
            found = list(postgres.leaves_after(kind, 0))
            assert found == list(sqlite.leaves_after(kind, 0))
            assert found == [(at, kind.encode(postgres.row(kind, at))) for at, _ in found]
            if "id" in kind.texts:
                assert sorted(postgres.newest_ids(kind, 1000)) == sorted(sqlite.newest_ids(kind, 1000))
            assert list(postgres.leaves_after(kind, 1, until=7, limit=3)) == list(
                sqlite.leaves_after(kind, 1, until=7, limit=3)
            )
        assert postgres.producers() == sqlite.producers() != {}


TEXTS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_rows_have_the_same_leaf_in_both_stores(filled: PostgresSeal, connection: Any, database: Path, data: Any):
    """Whatever their columns hold, in both stores and in Python."""
    kind = data.draw(st.sampled_from([kind for kind in leaf.KINDS if kind.name not in {"gap", "hold"}]))
    numbers = {kind.column(name) for name in kind.numbers}
    columns = [
        name for name in (*kind.columns, *(leaf.BESIDE if kind.hashed else ())) if name != kind.column("position")
    ]
    nullable = {"salt", "erased", "error", "reason"} | {
        name for name in numbers if name in {"exit_code", "http_status"}
    }
    row: dict[str, Any] = {kind.column("position"): data.draw(st.integers(10_000, 2**62))}
    for name in columns:
        if name == "salt":
            value: Any = st.binary(max_size=16)
        elif name == "erased":
            value = st.just('{"error": "00", "args_summary": "11", "reason": 7}') | TEXTS
        elif name in numbers:
            value = st.integers(0, 1) if name in SMALL else st.integers(-(2**63), 2**63 - 1)
        else:
            value = st.just("[erased]") | TEXTS if name in kind.hashed else TEXTS
        row[name] = data.draw(value | st.none() if name in nullable and kind.name != "erasure" else value)
    names = sorted(row)
    table = next(table for table in TABLES if table.name == kind.table)
    values = [[row[name] for name in names]]
    where = f"{kind.column('position')} = {row[kind.column('position')]}"
    connection.execute("SAVEPOINT made")
    try:
        connection.execute(
            f"INSERT OR REPLACE INTO {kind.table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
            values[0],
        )
        leaf_of_sqlite = SqliteSealedLedger(connection, database).leaf_at(kind, row[kind.column("position")])
    finally:
        connection.execute("ROLLBACK TO made")
        connection.execute("RELEASE made")
    PostgresTables(filled.connection).add(table, names, values, instead=False)
    try:
        with closing(filled.place.open_ledger()) as postgres:
            assert postgres.leaf_at(kind, row[kind.column("position")]) == leaf_of_sqlite == kind.encode(row)
    finally:
        filled.change(f"DELETE FROM {kind.table} WHERE {where}")


SMALL = {"result_truncated", "times_observed", "shadow", "unconfined", "usage_incomplete", "context_exceeded"} | {
    "cost_reported"
}


def test_a_ledger_is_sealed_and_verified(filled: PostgresSeal, record: Record):
    assert filled.run() == 40 + 20 + 10 + 1
    record(**rows(8), last=9)
    filled.copy()
    assert filled.verify().unsealed == {"tool_call": 8, "model_request": 4, "gap": 1}
    assert filled.run() == 71 + 13
    report = filled.verify()
    assert (report.problems, report.rows, report.unsealed) == ([], 84, {})


def test_the_log_is_the_one_of_a_folder(filled: PostgresSeal, tmp_path: Path):
    """Whoever takes its files to a folder has tlog-tiles that every tool reads."""
    size = filled.run()
    with closing(filled.place.open_log()) as log:
        tiles = Tiles(log, size)
        checkpoint = log.read("checkpoint")
        assert checkpoint
        assert f"\n{size}\n".encode() in checkpoint
        for level in range(2):
            assert tiles.tile(level, 0) if size >> 8 * level else True
        assert log.read_below("tile/0/000.p") == {str(size): log.read(f"tile/0/000.p/{size}")}
        assert log.read_below("tile/0/000") == {}
        log.write({"cosigned/00aabbcc": b"x"})
        assert log.read_below("cosigned") == {"00aabbcc": b"x"}
        log.remove("cosigned/00aabbcc")
        assert log.read("cosigned/00aabbcc") is None


CHANGES = {
    "a field": "UPDATE tool_call_log SET recorded_by = 'mallory' WHERE position = 7",
    "a text": "UPDATE tool_call_log SET args_summary = '{}' WHERE position = 7",
    "a salt": "UPDATE tool_call_log SET salt = 'x' WHERE position = 7",
    "a number": "UPDATE cost_log SET cost_micros = 1 WHERE position = 3",
    "a row": "DELETE FROM cost_log WHERE position = 3",
    "a row among others": "DELETE FROM gap_log WHERE position = 1",
    "a session": "UPDATE sessions SET turns = turns + 1 WHERE id = 'session-1'",
    "a session's labels": "UPDATE session_labels SET value = 'other' WHERE session_id = 'session-1' AND key = 'team'",
    "a session that is gone": "DELETE FROM sessions WHERE id = 'session-1'",
    "texts without an entry": "UPDATE tool_call_log SET erased = '{}', salt = NULL WHERE position = 7",
    "texts that no JSON keeps": "UPDATE tool_call_log SET erased = '{', args_summary = '[erased]' WHERE position = 7",
    "the last row": "UPDATE tool_call_log SET tool_name = 'x' WHERE position = 40",
    "a tile": r"UPDATE seal_files SET data = set_byte(data, 5, get_byte(data, 5) # 1) WHERE path LIKE 'tile/0/%'",
    "a tile that is gone": "DELETE FROM seal_files WHERE path LIKE 'tile/0/%'",
    "the checkpoint": "UPDATE seal_files SET data = data || 'x'::bytea WHERE path = 'checkpoint'",
    "a run of the index": "UPDATE seal_runs SET first_position = first_position + 1 WHERE kind = 'model_request'",
    "the index": "DELETE FROM seal_runs",
    "two rows": (
        "UPDATE tool_call_log SET position = -1 WHERE position = 7; "
        "UPDATE tool_call_log SET position = 7 WHERE position = 8; "
        "UPDATE tool_call_log SET position = 8 WHERE position = -1"
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_by_the_owner_of_thedatabase_is_told(filled: PostgresSeal, change: str):
    filled.run()
    filled.change(CHANGES[change])
    assert filled.verify().problems
    if change == "the last row":
        with pytest.raises(Rewritten, match="is another"):
            filled.run()


def test_what_was_rolled_back_with_its_seal_is_told_by_an_old_checkpoint_alone(
    filled: PostgresSeal,
    postgres_server: Any,
    tmp_path: Path,
    record: Record,
):
    """The owner of the database puts an older state of it back, rows and log alike."""
    filled.run()
    kept = tmp_path / "kept"
    name = filled.place.url.rpartition("/")[2]
    filled.connection.close()
    older = postgres_server.create_database(f"{name}_older", name)
    with closing(connect(filled.place.url, writes=True)) as connection:
        filled.connection = connection
        record(**rows(4), last=7)
        filled.copy()
        filled.run()
        with closing(filled.place.open_log()) as log:
            kept.write_bytes(log.read("checkpoint") or b"")
    assert not filled.verify(kept).problems
    restored = PostgresSeal(older, connection, tmp_path / "keys", filled.database)
    assert not restored.verify().problems
    (told,) = restored.verify(kept).problems
    assert "it was rolled back" in told


def test_two_sealers_never_go_on_from_the_same_checkpoint(filled: PostgresSeal, record: Record):
    with filled.open() as first, filled.open() as second:
        assert not first.step()
        with pytest.raises(InUse, match="another process seals this ledger"):
            second.step()
        record(tool_calls=[audit_row()])
        filled.copy()
        with pytest.raises(InUse):  # the loser looks again before it signs anything
            second.step()
    assert filled.run() == 72
    assert not filled.verify().problems


def test_sealers_that_take_turns_make_one_log(filled: PostgresSeal, record: Record):
    chance = random.Random(7)
    sealers = [filled.open(), filled.open()]
    lost = 0
    for _ in range(30):
        record(tool_calls=[audit_row() for _ in range(chance.randrange(4))] or [audit_row()])
        filled.copy()
        which = chance.randrange(2)
        try:
            sealers[which].step()
        except InUse:
            lost += 1
            sealers[which].__exit__()
            sealers[which] = filled.open()
    for sealer in sealers:
        sealer.__exit__()
    filled.run()
    assert lost > 5
    assert not filled.verify().problems


def test_a_log_is_begun_once(filled: PostgresSeal, tmp_path: Path):
    with filled.open():
        other = PostgresSeal(filled.place.url, filled.connection, tmp_path / "others", filled.database)
        other.key.parent.mkdir()
        with pytest.raises(BadKey, match="is missing, with which the log in the ledger's database was begun"):
            other.open()


def test_a_log_without_its_checkpoint_is_not_begun_anew(filled: PostgresSeal):
    filled.run()
    filled.change("DELETE FROM seal_files WHERE path = 'checkpoint'")
    with pytest.raises(BadLog, match="has a log and no checkpoint"):
        filled.run()


def test_a_sealer_whose_connection_dies_at_any_statement_leaves_a_log_that_goes_on(
    filled: PostgresSeal,
    record: Record,
    monkeypatch: pytest.MonkeyPatch,
):
    left, deaths = 0, 0

    def dying(do: Callable[..., Any]) -> Callable[..., Any]:
        def run(log: PostgresLog, *given: Any) -> Any:
            nonlocal left
            left -= log._is_changing
            if left == 0 and log._is_changing and log._opened:
                log._opened.raw.pgconn.finish()
            return do(log, *given)

        return run

    for name in ("all", "run_many"):
        monkeypatch.setattr(PostgresLog, name, dying(getattr(PostgresLog, name)))
    for at in range(2, 26):
        record(tool_calls=[audit_row() for _ in range(17)])
        filled.copy()
        left = 1 + at % 11
        try:
            filled.run()
        except StoreUnavailable:
            deaths += 1
        left = 0
        assert filled.run() == 71 + 17 * (at - 1)
        assert not filled.verify().problems
    assert deaths > 15


def test_a_restore_is_accepted_and_a_key_is_changed(filled: PostgresSeal):
    size = filled.run()
    filled.change("DELETE FROM tool_call_log WHERE position > 37")
    with pytest.raises(Rewritten):
        filled.run()
    with filled.open() as sealer:
        restore = sealer.accept_restore("the disk died", "ada")
        assert restore.lost["tool_call"] == 3
        sealer.rotate_key("to be sure", "ada")
        sealer.retire_key("all have it", "ada")
    assert filled.run() == size + 3
    report = filled.verify()
    assert (report.problems, report.lost, len(report.key_changes)) == ([], 3, 2)


def test_a_row_is_proven(filled: PostgresSeal, database: Path):
    filled.run()
    with closing(filled.place.open_ledger()) as ledger, closing(filled.place.open_log()) as log, ledger.moment():
        id_ = ledger.row(leaf.BY_NAME["tool_call"], 9)["id"]
        verifier = own_verifier(log)
        note = (log.read("checkpoint") or b"").decode()
        found = rows_of(ledger, [leaf.BY_NAME["tool_call"]], id_, None)
        assert prove(log, verifier, [note], found).check(verifier).size == 71
        assert not list(Cosigned(log).notes([]))


async def test_the_service_answers_of_a_log_in_tables(filled: PostgresSeal, record: Record, tmp_path: Path):
    """What ProofService asks for: checkpoints, consistency, a row's proof, tiles, and what witnesses have signed."""
    witness = Cosigner.new("witness.example.com/w")
    policy = read_policy(f"witness w {witness.verifier}\n")
    reader = SealReader(filled.place.open_ledger, filled.place.open_log(), lambda: policy)
    try:
        with pytest.raises(NotSealed):
            await reader.ask(SealReader.head)
        filled.run()
        old = await reader.ask(SealReader.head)
        text, (own, *_) = split_note(old.note)
        await reader.ask(lambda seal: seal.add_cosignature(f"{text}\n{own.line}{witness.cosign(text, 7)}"))
        record(**rows(20), last=7)
        filled.copy()
        filled.run()
        head = await reader.ask(SealReader.head)
        hashes = await reader.ask(lambda seal: seal.consistency(head, old.checkpoint.size))
        assert tree.is_consistent(
            old.checkpoint.root, old.checkpoint.size, head.checkpoint.root, head.checkpoint.size, hashes
        )
        assert await reader.ask(lambda seal: seal.seen_by(policy[0].key)) == old.checkpoint.size
        with closing(filled.place.open_ledger()) as ledger:
            first, last = (str(ledger.row(leaf.BY_NAME["tool_call"], at)["id"]) for at in (9, 60))
        for id_, size in ((first, old.checkpoint.size), (last, head.checkpoint.size)):
            proof = await reader.ask(lambda seal, id_=id_: seal.proof([leaf.BY_NAME["tool_call"]], id_, None))  # type: ignore[misc]
            assert proof.check(head.verifier).size == size, (
                "of the checkpoint that the witness signed, where it has the row"
            )
        path = f"tile/0/000.p/{head.checkpoint.size}"
        assert len(await reader.ask(lambda seal: seal.tile(path))) == 32 * head.checkpoint.size
        filled.change("UPDATE tool_call_log SET tool_name = 'x' WHERE position = 9")
        with pytest.raises(Damaged, match="is not what was sealed"):
            await reader.ask(lambda seal: seal.proof([leaf.BY_NAME["tool_call"]], first, None))
        # a connection that the server ends is opened again
        filled.change(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with suppress(StoreUnavailable):
            await reader.ask(SealReader.head)
        assert (await reader.ask(SealReader.head)).checkpoint == head.checkpoint
    finally:
        reader.close()


def test_time_stamps_are_kept_in_tables_and_checked_from_there(filled: PostgresSeal, tmp_path: Path):
    """OpenSSL's own authority has stamped the log, which goes to a folder and is checked from there too."""
    filled.run()
    authority = ScriptedAuthority(tmp_path / "authority", Certificates(tmp_path / "certificates"))
    log = filled.place.open_log()
    note = log.read(CHECKPOINT)
    assert note
    Stamps(log).keep(note, authority.stamp(request_for(note).as_bytes()))
    newest = Stamps(log).newest()
    assert newest is not None
    assert newest[0] == filled.run()
    folder = FolderLog(tmp_path / "copied.seal")
    copy_log(log, folder)
    for kept in (log, folder):
        root_of = roots_of(Tiles(kept, newest[0]))
        found = Stamps(kept).look(read_authorities(authority.certificates.ca), root_of)
        assert found.problems == []
        assert [(stamp.leaves, stamp.at) for stamp in found.stamps] == [newest]
    log.close()
