"""What was sealed is verified, may be gone after a prune or a restore, and is proven without the ledger."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from audit_svc.seal import leaf
from audit_svc.seal.errors import Rewritten
from audit_svc.seal.files import FolderFiles
from audit_svc.seal.folder import CHECKPOINT, VERIFIER, read_verifier
from audit_svc.seal.tiles import Tiles
from audit_svc.sql.write.clock import LedgerClock
from audit_svc.sqlite.care.prune import Prune
from recording.transparency.errors import BadNote
from recording.transparency.proof import Proof
from tests.audit_svc.samples import NOW_MS, audit_row
from tests.audit_svc.seal.conftest import Record, Seal, change, rows


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


def test_a_restore_that_lost_nothing_is_on_the_log_too(seal: Seal, record: Record):
    record(**rows(8))
    size = seal.run()
    with seal.open() as sealer:
        assert not any(sealer.accept_restore("none", "ada").lost.values())
    assert seal.run() == size + 1
