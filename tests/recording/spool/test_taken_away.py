"""A spool's folder, or a file in it, is taken away while its process lives: nobody deletes rows that live, and the
process goes on elsewhere with all that it can still read.
"""

import fcntl
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording.held_folder import LOCK
from recording.logger import Row
from recording.spool import Folders, Spool, SpoolOptions
from recording.spool.gap import GAP_TOOL_NAME
from tests.recording.samples import crash, ids, intent, open_spool, opened, read_all, tool_call

ROWS = 2000


def folders(state_dir: Path) -> Folders:
    return Folders(state_dir / "spool", SpoolOptions())


def folder_of(spool: Spool) -> Path:
    return spool.root / spool.id


def moved(spool: Spool, state_dir: Path) -> Spool:
    """The spool in which a process goes on that finds its own taken away."""
    assert not spool.is_there()
    other = folders(state_dir).make()
    spool.move_to(other)
    assert (spool.read(1, 2**20), spool.has_unread()) == (None, False)
    spool.remove()
    return other


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def told(rows: list[Row]) -> int:
    return sum(
        json.loads(row.args_summary)["tool_calls"]
        for row in rows
        if isinstance(row, audit_pb2.AuditRow) and row.tool_name == GAP_TOOL_NAME
    )


def test_a_living_spool_is_not_adopted_though_its_lock_file_was_cleaned_away(tmp_path: Path) -> None:
    """Who tidies up by age takes lock files first: the folder itself is locked."""
    with opened(tmp_path) as spool:
        spool.append(tool_call(1))
        (folder_of(spool) / LOCK).unlink()
        assert folders(tmp_path).adopt(9) == []
        with opened(tmp_path) as other:
            assert other.id != spool.id
        assert ids(read_all(spool)) == ["call-1"]


def test_a_lock_file_that_was_cleaned_away_is_made_again(tmp_path: Path) -> None:
    """Earlier versions, and file systems that lock no folders, know nothing else."""
    with opened(tmp_path) as spool:
        (folder_of(spool) / LOCK).unlink()
        assert spool.is_there()
        assert (folder_of(spool) / LOCK).exists()


def test_on_a_file_system_that_locks_no_folders_an_owner_sees_that_another_took_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        if Path(f"/proc/self/fd/{fd}").is_dir():
            raise OSError(9, "Bad file descriptor")  # NFS: its locks need a file that is open for writing
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    spool = open_spool(tmp_path)
    assert folders(tmp_path).adopt(9) == []
    spool.append(tool_call(1))
    (folder_of(spool) / LOCK).unlink()
    (adopted,) = folders(tmp_path).adopt(9)
    other = moved(spool, tmp_path)
    assert folder_of(adopted).exists(), "it is the adopter's now"
    assert ids(read_all(other)) == ids(read_all(adopted)) == ["call-1"]
    adopted.remove()
    other.close()


def removed(folder: Path) -> None:
    shutil.rmtree(folder)


def renamed(folder: Path) -> None:
    folder.rename(folder.with_name("aside"))


def replaced(folder: Path) -> None:
    renamed(folder)
    folder.mkdir()
    (folder / "notes").write_text("somebody's")


def segment_removed(folder: Path) -> None:
    max(folder.glob("*.segment")).unlink()


@pytest.mark.parametrize("take_away", [removed, renamed, replaced, segment_removed])
def test_what_is_not_sent_goes_on_in_another_folder(tmp_path: Path, take_away: Callable[[Path], None]) -> None:
    """Rows, open calls, and what is still to be told of a gap: also what came after the folder was taken away."""
    spool = open_spool(tmp_path / "state", sync_interval_ms=1)
    for number in range(10):
        spool.append(tool_call(number))
    batch = spool.read(4, 2**20)
    assert batch is not None
    spool.ack(batch)
    spool.append_intent(intent(100))
    spool.append_intent(intent(101))
    take_away(folder_of(spool))
    spool.append(tool_call(10))
    other = moved(spool, tmp_path / "state")
    other.append(tool_call(100))
    assert ids(read_all(other)) == [*(f"call-{number}" for number in range(4, 11)), "call-100"]
    left = crash(tmp_path / "state")
    shutil.rmtree(left / "spool" / spool.id, ignore_errors=True)
    with opened(left) as survivor:
        (interrupted,) = [row for row in read_all(survivor) if row.id == "call-101"]
        assert isinstance(interrupted, audit_pb2.AuditRow)
        assert interrupted.outcome == common_pb2.OUTCOME_INTERRUPTED
    other.close()
    if take_away is replaced:
        assert [path.name for path in folder_of(spool).iterdir()] == ["notes"]


def test_calls_that_an_earlier_process_left_open_are_told_though_the_folder_is_gone(tmp_path: Path) -> None:
    with opened(tmp_path / "state") as spool:
        spool.append_intent(intent(1))
        spool.append_intent(intent(2))
        spool.append(tool_call(2))
        left = crash(tmp_path / "state")
    spool = open_spool(left)
    renamed(folder_of(spool))
    other = moved(spool, left)
    outcomes = {row.id: row.outcome for row in read_all(other) if isinstance(row, audit_pb2.AuditRow)}
    assert outcomes == {"call-1": common_pb2.OUTCOME_INTERRUPTED, "call-2": common_pb2.OUTCOME_SUCCEEDED}
    other.close()


@pytest.mark.parametrize("take_away", [removed, renamed])
def test_what_cannot_be_read_any_more_is_told_by_a_gap_row(tmp_path: Path, take_away: Callable[[Path], None]) -> None:
    """Removed files can be read only while they are open: of a long backlog that is the last."""
    spool = open_spool(tmp_path, max_bytes=2**20)
    for number in range(ROWS):
        spool.append_intent(intent(number))
        spool.append(tool_call(number))
    assert len(list(folder_of(spool).glob("*.segment"))) > 2
    spool.sync()
    take_away(folder_of(spool))
    other = moved(spool, tmp_path)
    rows: list[Row] = []
    while len(rows) + told(rows) < ROWS:
        rows += read_all(other)
    kept = {row.id for row in rows if row.id.startswith("call-")}
    assert (len(kept) == ROWS) == (take_away is renamed)
    assert told(rows) == ROWS - len(kept) == spool.counters.lost
    other.close()


@pytest.fixture
def few_files() -> Iterator[int]:
    """This process may open few files more than it has open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = open_files() + 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, limits[1]))
    yield few
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def many_segments(state_dir: Path, count: int) -> Path:
    """A folder of a dead process with so many segments of a row each."""
    with opened(state_dir) as spool:
        for number in range(count):
            spool.append(tool_call(number))
            spool._log.abandon_segment()
            if number % 20 == 0:
                spool.sync()
    return folder_of(spool)


def test_more_segments_than_a_process_may_open_are_sent_by_it(tmp_path: Path, few_files: int) -> None:
    many_segments(tmp_path, few_files + 20)
    before = open_files()
    with opened(tmp_path) as spool:
        assert spool.sync()
        assert len(read_all(spool)) == few_files + 20
        assert open_files() < before + 10


def test_a_folder_that_could_not_be_opened_is_tried_again(tmp_path: Path) -> None:
    """What was wrong may have been the process's own lack of descriptors, or a disk's bad moment."""
    with opened(tmp_path) as spool:
        spool.append(tool_call(1))
    state = folder_of(spool) / "state"
    state.unlink()
    state.mkdir()
    own = folders(tmp_path)
    assert own.adopt(1) == []
    before = open_files()
    assert own.adopt(1) == []
    assert open_files() == before
    state.rmdir()
    (adopted,) = own.adopt(1)
    assert ids(read_all(adopted)) == ["call-1"]
    adopted.remove()
