"""An export of the whole log: checked with the log's key and nothing else."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit_svc.errors import Damaged
from audit_svc.seal import sealed_export
from audit_svc.seal.files import FolderFiles
from audit_svc.seal.folder import CHECKPOINT, VERIFIER, read_checkpoint, read_verifier
from audit_svc.seal.outside.cosigned import Cosigned
from audit_svc.seal.tiles import Tiles
from audit_svc.seal.verify import Report
from audit_svc.sql.write.clock import LedgerClock
from audit_svc.sqlite.care.prune import Prune
from recording.transparency import tree
from recording.transparency.cosignature import Cosigner, Witness
from recording.transparency.note import split_note
from tests.audit_svc.samples import NOW_MS, audit_row
from tests.audit_svc.seal.conftest import Seal, change, rows
from tests.support.examples import examples

HOUR_MS = 3_600_000
Record = Callable[..., None]


def export(seal: Seal, *cosigned: str) -> list[str]:
    note = (seal.folder / CHECKPOINT).read_text()
    with closing(seal.place.open_ledger()) as ledger, ledger.moment():
        return list(sealed_export.lines(ledger, seal.place.open_log(), note, cosigned, lambda done, total: None))


def check(seal: Seal, lines: list[str], *witnesses: Witness, old: tuple[Path, ...] = ()) -> Report:
    log = read_verifier(str(seal.folder / VERIFIER))
    kept = [(str(path), read_checkpoint(path, log)[0]) for path in old]
    return sealed_export.check(lines, log, kept, witnesses, len(witnesses), lambda done, total: None)


@pytest.fixture
def history(seal: Seal, record: Record, connection: Any, writer: Any) -> Seal:
    """A log with a prune and a restore in it, after which positions were given again."""
    record(**rows(8))
    record(tool_calls=[audit_row(created_at_ms=NOW_MS - 9 * HOUR_MS) for _ in range(5)], sessions=[])
    record(**rows(4))
    seal.run()
    prune = Prune(NOW_MS // HOUR_MS * HOUR_MS - 2 * HOUR_MS, "ada", LedgerClock(connection))
    while not writer.run(prune.step).result().done:
        pass
    seal.run()
    change(seal.database, "DELETE FROM tool_call_log WHERE position > 15")
    with seal.open() as sealer:
        assert sealer.accept_restore("the disk died", "ada").lost["tool_call"] == 2
    change(seal.database, "CREATE TABLE x AS SELECT * FROM tool_call_log WHERE position = 15")
    for position in (16, 17):
        change(
            seal.database,
            f"UPDATE x SET position = {position}, id = 'again-{position}'",
            "INSERT INTO tool_call_log SELECT * FROM x",
        )
    change(seal.database, "DROP TABLE x")
    seal.run()
    assert seal.verify().problems == []
    return seal


def test_an_export_has_each_leaf_or_its_hash_and_why_it_is_gone(history: Seal):
    lines = export(history)
    report = check(history, lines)
    verified = history.verify()
    assert report.problems == []
    assert (report.rows, report.removed, report.lost) == (verified.rows, verified.removed, verified.lost)
    assert (report.removed, report.lost) == (5, 2)
    gone = [json.loads(line) for line in lines[1:] if '"gone":' in line]
    assert len(gone) == 7
    assert len(lines) == 1 + (verified.checkpoint.size if verified.checkpoint else 0)


def test_a_row_cannot_be_hidden_as_another_that_is_gone(history: Seal):
    lines = export(history)
    told = [(at, json.loads(line)) for at, line in enumerate(lines[1:], 1)]
    gone = next(said["position"] for _, said in told if "gone" in said and said["gone"] == "tool_call")
    at = next(at for at, said in told if said.get("kind") == "tool_call")
    hash_of = tree.leaf_hash(lines[at].removesuffix("\n").encode()).hex()
    lines[at] = sealed_export.canonical_line({"gone": "tool_call", "position": gone, "hash": hash_of})
    assert "does not belong" in check(history, lines).problems[0]


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_an_export_that_was_changed_anywhere_is_told(history: Seal, data: st.DataObject):
    lines = export(history)
    at = data.draw(st.integers(1, len(lines) - 1))
    how = data.draw(st.sampled_from(["character", "drop", "twice", "swap", "cut", "gone", "join"]))
    line = lines[at]
    if how == "character":
        place = data.draw(st.integers(0, len(line) - 2))
        lines[at] = (
            line[:place]
            + data.draw(st.sampled_from('0a}"\\\n ').filter(lambda c: c != line[place]))
            + line[place + 1 :]
        )
    elif how == "drop":
        del lines[at]
    elif how == "twice":
        lines.insert(at, line)
    elif how == "swap":
        place = data.draw(st.integers(1, len(lines) - 1).filter(lambda n: lines[n] != line))
        lines[at], lines[place] = lines[place], line
    elif how == "cut":
        del lines[at:]
    elif how == "join":
        lines[at] = line.replace('","', '", "', 1) if '","' in line else line[:-2] + " }\n"
    else:
        said = json.loads(line)
        if "gone" in said or said["kind"] == "entry" or said["position"] is None:
            return
        hash_of = tree.leaf_hash(line.removesuffix("\n").encode()).hex()
        lines[at] = sealed_export.canonical_line({"gone": said["kind"], "position": said["position"], "hash": hash_of})
    problems = check(history, lines).problems
    if how == "join" and "gone" in json.loads(line):
        return  # of such a line only what it says counts
    assert problems


def test_what_witnesses_and_kept_checkpoints_say_is_held_against_it(seal: Seal, record: Record, tmp_path: Path):
    record(**rows(8))
    seal.run()
    kept = tmp_path / "kept"
    shutil.copy(seal.folder / CHECKPOINT, kept)
    witness = Cosigner.new("w1")
    log = read_verifier(str(seal.folder / VERIFIER))
    note = kept.read_text()
    tiles = Tiles(FolderFiles(seal.folder), read_checkpoint(kept, log)[0].size)
    Cosigned(FolderFiles(seal.folder)).keep(
        note + witness.cosign(split_note(note)[0], 7), log, [witness.verifier], tiles
    )
    record(**rows(4))
    seal.run()
    lines = export(seal, *(note for _, note in Cosigned(FolderFiles(seal.folder)).notes([witness.verifier])))
    report = check(seal, lines, witness.verifier, old=(kept,))
    assert report.problems == []
    assert [(seen.witness.name, leaves) for seen, leaves in report.witnesses] == [("w1", tiles.size)]
    assert check(seal, lines, Cosigner.new("w2").verifier).problems
    later = tmp_path / "later"
    shutil.copy(seal.folder / CHECKPOINT, later)
    change(seal.database, "UPDATE tool_call_log SET duration_ms = 77 WHERE position = 2")
    with pytest.raises(Damaged, match="tool_call at position 2"):
        export(seal)
    for name in ("tile", "index.db", CHECKPOINT):
        path = seal.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    seal.run()
    anew = export(seal, *(note for _, note in Cosigned(FolderFiles(seal.folder)).notes([witness.verifier])))
    assert check(seal, anew).problems == []
    assert "written anew" in check(seal, anew, old=(kept,)).problems[0]
    assert "written anew" in check(seal, anew, witness.verifier).problems[0]
    assert "rolled back" in check(seal, lines[:1], old=(later,)).problems[0] or check(seal, lines[:1]).problems


def test_what_is_no_export_is_refused_with_a_sentence(history: Seal):
    [head, *rest] = export(history)
    for lines in (
        *([], ["\n"], ["{}\n"], ["[" * 100_000 + "\n"], ['{"checkpoint": "x", "cosigned": []}\n'], [*rest]),
        *([head, "[" * 100_000 + "\n"], [head, '"gone"\n'], [head, "7\n"], [head, '{"gone": 1, "hash": "00"}\n']),
    ):
        assert check(history, lines).problems


@given(st.integers(0, 600))
def test_the_root_of_leaves_that_come_one_by_one_is_that_of_the_tree(size: int):
    leaves = [tree.leaf_hash(str(n).encode()) for n in range(size)]
    grown = sealed_export._Grown()
    for each in leaves:
        grown.add(each)

    def subtree(height: int, n: int) -> bytes:
        return tree.fold(leaves[n << height : (n + 1) << height])

    assert grown.root() == tree.root(size, subtree)
