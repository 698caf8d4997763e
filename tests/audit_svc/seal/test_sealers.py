"""One sealer writes a log, whatever is done to the folder under it."""

import json
from pathlib import Path

import pytest

from audit_svc.__main__ import program
from audit_svc.seal.errors import BadLog, InUse
from audit_svc.seal.folder import CHECKPOINT
from recording.held_folder import LOCK
from tests.audit_svc.samples import audit_row
from tests.audit_svc.seal.conftest import Record, Seal, rows
from tests.support.command_line import invoke


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
