"""The file of the requests that name themselves, where several gateways begin on one folder at once."""

import os
from pathlib import Path

import pytest

from gateway_svc.turns import requests
from gateway_svc.turns.requests import Requests
from recording.locks import lock_file


async def test_a_new_file_that_another_gateway_takes_over_at_once_is_made_again(tmp_path, monkeypatch):
    """A gateway that starts too sees it before it is locked, and takes it for one that was left."""
    taken = dict[Path, int | None]()

    def slowly(path: Path) -> int | None:
        if not taken:
            taken[path] = lock_file(path)
        return lock_file(path)

    monkeypatch.setattr(requests, "lock_file", slowly)
    begun = Requests(tmp_path)
    ((other, lock),) = taken.items()
    assert lock is not None
    assert len({other, *(tmp_path / "requests").glob("*.jsonl")}) == 2
    os.close(lock)
    begun.close()


def test_a_folder_that_takes_no_files_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "lock_file", lambda path: None)
    with pytest.raises(OSError, match="can be made and locked"):
        Requests(tmp_path)
