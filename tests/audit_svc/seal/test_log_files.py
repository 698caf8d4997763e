"""Files of the log that are changed, missing or rolled back are told, and no other log is begun in their place."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from audit_svc.seal.errors import BadLog, SealError
from audit_svc.seal.folder import CHECKPOINT, KEY
from recording.transparency.errors import BadKey
from tests.audit_svc.seal.conftest import Record, Seal, change, rows


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


def test_a_log_whose_key_is_missing_is_not_begun_anew(seal: Seal, record: Record):
    record(**rows(4))
    seal.run()
    (seal.folder / KEY).unlink()
    with pytest.raises(BadKey, match="is missing"):
        seal.run()


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
