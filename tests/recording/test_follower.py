"""Who follows folders looks at those that nobody owns now and then, however many there are."""

import os
from pathlib import Path

import pytest

from recording.delivery.connection import Target
from recording.delivery.sender import Sender
from recording.following import follower as follower_module
from recording.following.follower import Follower
from recording.held_folder import LOCK, is_free
from recording.locks import lock_file
from recording.spool import Counters, Folders, SpoolOptions
from tests.recording.samples import tool_call

OPTIONS = SpoolOptions(sent_by_others=True)


@pytest.mark.long
async def test_many_folders_of_dead_processes_cost_little_and_a_new_process_is_followed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty times a second each of them was locked, by the thread that sends."""
    looked: list[Path] = []

    def look(path: Path) -> bool:
        looked.append(path)
        return is_free(path)

    monkeypatch.setattr(follower_module, "is_free", look)
    folders = Folders(tmp_path, OPTIONS)
    dead = [folders.make() for _ in range(100)]
    for spool in dead:
        spool.close()
    sender = Sender(None, Target("localhost:1"), counters=Counters())
    follower = Follower(tmp_path, sender, Counters())
    follower.look()
    assert len(looked) == 100
    looked.clear()
    for _ in range(5):
        follower.look()
    assert len(looked) <= 5 * 16
    living = folders.make()
    assert living.append(tool_call(1))
    follower.look()
    assert follower.is_busy, "who has just begun is looked at first"
    begins = tmp_path / dead[0].id
    lock = lock_file(begins / LOCK)  # its process had made it, and not held it yet
    assert lock is not None
    for _ in range(8):
        follower.look()
    assert {living.id, begins.name} == {spool.id for spool in sender._turns}
    os.close(lock)
    follower.end()
    living.close()
