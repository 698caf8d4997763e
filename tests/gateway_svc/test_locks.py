"""A lock tells who is there, whatever happens to its file meanwhile."""

import os
from pathlib import Path

from recording.locks import lock_file


def test_a_lock_on_a_file_that_is_being_removed_is_no_lock(tmp_path: Path) -> None:
    """Who opened the lock file before it was deleted must not believe that it is theirs."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "lock"
    mine = lock_file(path)
    assert mine is not None
    assert lock_file(path) is None
    waiting = os.open(path, os.O_RDWR)
    path.unlink()
    os.close(mine)
    path.touch()
    fresh = lock_file(path)
    assert fresh is not None
    assert not os.path.samestat(os.fstat(waiting), os.fstat(fresh))
    os.close(waiting)
    os.close(fresh)
    path.unlink()
    folder.rmdir()
    assert lock_file(path) is None
