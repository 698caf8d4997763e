"""An erased row is provable without its texts, and a text is gone only where an entry says so."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from audit_svc.ledger.erasing import Erasure
from audit_svc.seal import leaf
from audit_svc.seal.files import FolderFiles
from audit_svc.seal.folder import VERIFIER, read_verifier
from audit_svc.seal.tiles import Tiles
from audit_svc.sql.write.clock import LedgerClock
from audit_svc.sqlite.care.erase import Erase
from audit_svc.sqlite.seal.index import FolderIndex
from recording.transparency.proof import Proof
from tests.audit_svc.samples import audit_row
from tests.audit_svc.seal.conftest import Seal, change, rows

Record = Callable[..., None]


@pytest.fixture
def erase(writer: Any, connection: Any) -> Callable[..., None]:
    def erase(**which: Any) -> None:
        work = Erase(Erasure("ada", "asked to", **which), LedgerClock(connection))
        while not writer.run(work.step).result().done:
            pass

    return erase


def forget(position: int, erased: str) -> str:
    """What somebody does by hand to look as if the texts had been erased."""
    return (
        f"UPDATE tool_call_log SET salt = NULL, args_summary = '[erased]', error = NULL, erased = {erased} "
        f"WHERE position = {position}"
    )


ENTRY = (
    "INSERT INTO erasure_log (erased_kind, first_position, last_position, erased_by, reason, recorded_at) "
    "VALUES ('tool_call', {0}, {0}, 'mallory', 'x', 0)"
)


def test_what_is_left_of_an_erased_row_fits_the_seal_whether_it_was_sealed_before_or_is_after(
    seal: Seal, record: Record, erase: Any
):
    record(**rows(8))
    seal.run()
    record(tool_calls=[audit_row(session_id="later", error="x"), audit_row()])
    erase(session_id="session-1")
    erase(session_id="later")
    report = seal.verify()
    assert (report.problems, report.erased, report.unsealed["erasure"]) == ([], 12, 5)
    seal.run()
    report = seal.verify()
    assert (report.problems, report.erased, report.unsealed) == ([], 12, {})


def test_a_proof_of_an_erased_row_is_that_of_before(seal: Seal, record: Record, erase: Any):
    record(**rows(8))
    seal.run()
    kind = leaf.BY_NAME["tool_call"]

    def proven() -> Proof:
        with closing(seal.place.open_ledger()) as ledger, closing(FolderIndex(seal.folder)) as index:
            said, at = ledger.leaf_at(kind, 5), index.find("tool_call", 5, index.size())
        assert said
        assert at is not None
        verifier = read_verifier(str(seal.folder / VERIFIER))
        made = Proof.make(
            said,
            at,
            Tiles(FolderFiles(seal.folder), seal.run()),
            (seal.folder / "checkpoint").read_text(),
        )
        made.check(verifier)
        return made

    before = proven()
    erase(session_id="session-1")
    assert proven().leaf == before.leaf


BY_HAND = {
    "texts without an entry": (
        forget(3, "json_object('args_summary', hex_sha256(CAST(salt || args_summary AS BLOB)))"),
        "tool_call 3 has no texts, and no entry says that they were erased",
    ),
    "other hashes": (forget(3, "json_object('args_summary', 'x')"), "tool_call 3 is not what was sealed as leaf 2"),
    "no hashes": (forget(3, "'nonsense'"), "tool_call 3 is not what was sealed as leaf 2"),
    "another text in the place of an erased one": (
        "UPDATE tool_call_log SET args_summary = 'ls' WHERE position = 1",
        "tool_call 1 is not what was sealed as leaf 0",
    ),
    "an entry without erasure": (ENTRY.format(4), "tool_call 4 has texts, and an entry says that they were erased"),
    "an entry that is removed": ("DELETE FROM erasure_log", "tool_call 1 has no texts, and no entry says"),
    "an entry of another row": (
        "UPDATE erasure_log SET first_position = 2, last_position = 2",
        "tool_call 2 has texts, and an entry says that they were erased",
    ),
    "an entry by another": ("UPDATE erasure_log SET erased_by = 'mallory'", "erasure 1 is not what was sealed"),
    "a salt": ("UPDATE tool_call_log SET salt = randomblob(16) WHERE position = 1", "tool_call 1 has a salt"),
}


@pytest.mark.long
@pytest.mark.parametrize("what", list(BY_HAND))
def test_a_change_by_hand_around_an_erasure_is_told(seal: Seal, record: Record, erase: Any, what: str):
    record(tool_calls=[audit_row(id=f"call-{n}") for n in range(6)])
    erase(row_id="call-0")
    record(tool_calls=[audit_row()])
    seal.run()
    assert not seal.verify().problems
    statement, told = BY_HAND[what]
    change(seal.database, statement)
    assert told in "\n".join(seal.verify().problems)
