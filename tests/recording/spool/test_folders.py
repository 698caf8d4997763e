"""Several processes below one state directory: each folder has one owner, and what the dead left is somebody's."""

import threading
from pathlib import Path

from recording.spool import Folders, Spool, SpoolOptions
from recording.spool.segments import SEGMENT_HEADER
from tests.recording.samples import crash, ids, open_spool, opened, read_all, segments_of, tool_call


def folders(state_dir: Path) -> Folders:
    return Folders(state_dir / "spool", SpoolOptions())


def leave_behind(state_dir: Path, count: int) -> list[str]:
    """Folders of dead processes with a row each; returns their producer ids."""
    spools = [open_spool(state_dir) for _ in range(count)]
    for number, spool in enumerate(spools):
        spool.append(tool_call(number))
        spool.close()
    return [spool.id for spool in spools]


def test_two_processes_have_two_folders(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as other:
        assert one.id != other.id


def test_a_process_goes_on_in_the_folder_that_a_dead_one_left(tmp_path: Path) -> None:
    """So that restarts neither fill the state directory with folders nor the ledger with producers."""
    first = leave_behind(tmp_path, 1)
    for _ in range(3):
        with opened(tmp_path) as spool:
            assert [spool.id] == first


def test_other_free_folders_are_adopted_drained_and_removed(tmp_path: Path) -> None:
    left = leave_behind(tmp_path, 4)
    own = folders(tmp_path)
    with opened(tmp_path) as spool:
        adopted = own.adopt(2) + own.adopt(2)
        assert sorted([spool.id, *(other.id for other in adopted)]) == sorted(left)
        assert own.adopt(2) == []
        for other in adopted:
            assert len(read_all(other)) == 1
            other.remove()
        assert own.adopt(2) == []
        assert [path.name for path in (tmp_path / "spool").iterdir()] == [spool.id]


def test_a_folder_with_files_that_are_not_ours_is_left_standing(tmp_path: Path) -> None:
    (producer_id,) = leave_behind(tmp_path, 1)
    (adopted,) = folders(tmp_path).adopt(1)
    (tmp_path / "spool" / producer_id / "notes.txt").write_text("somebody's")
    adopted.remove()
    assert [path.name for path in (tmp_path / "spool" / producer_id).iterdir()] == ["notes.txt"]


def test_of_many_that_race_for_free_folders_each_gets_another(tmp_path: Path) -> None:
    left = leave_behind(tmp_path, 3)
    got: list[Spool] = []
    start = threading.Barrier(12)

    def race() -> None:
        start.wait()
        got.append(open_spool(tmp_path))

    racers = [threading.Thread(target=race) for _ in range(12)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len({spool.id for spool in got}) == 12
    assert {spool.id for spool in got} >= set(left)
    for spool in got:
        spool.close()


def test_another_version_s_folder_is_left_alone(tmp_path: Path) -> None:
    """After a downgrade: the newer version will want its rows back."""
    (producer_id,) = leave_behind(tmp_path, 1)
    (segment,) = segments_of(tmp_path)
    newer = SEGMENT_HEADER[:-1] + b"9" + b"in a way that nobody knows yet"
    segment.write_bytes(newer)
    with opened(tmp_path) as spool:
        assert spool.id != producer_id
        assert folders(tmp_path).adopt(5) == []
        spool.append(tool_call(1))
    assert segment.read_bytes() == newer


def test_a_folder_that_cannot_be_read_stops_nobody(tmp_path: Path) -> None:
    (producer_id,) = leave_behind(tmp_path, 1)
    state = tmp_path / "spool" / producer_id / "state"
    state.unlink()
    state.mkdir()
    with opened(tmp_path) as spool:
        assert spool.id != producer_id


def test_things_that_are_no_folders_of_ours_are_passed_over(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    root.mkdir()
    (root / "lost+found").mkdir()
    (root / "0198c5a1-7c5e-7000-8000-000000000001").write_text("a file with a producer's name")
    with opened(tmp_path) as spool:
        spool.append(tool_call(1))
        assert ids(read_all(spool)) == ["call-1"]


def test_an_adopted_folder_keeps_its_own_numbers(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    with opened(state_dir) as spool:
        spool.append(tool_call(1))
        read_all(spool)
        spool.append(tool_call(2))
        left = crash(state_dir)
    (adopted,) = folders(left).adopt(1)
    batch = adopted.read(10, 2**20)
    assert batch is not None
    assert (adopted.id, batch.first, batch.last) == (spool.id, 2, 2)
    adopted.close()
