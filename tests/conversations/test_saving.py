"""Saves that wait for the disk hold up nobody else, and share what they wait for."""

import asyncio
import threading
from pathlib import Path

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb
from uuid_utils import uuid7

from gateway_svc.conversations.files import saving, session_file
from gateway_svc.conversations.files.saving import AT_ONCE, Saves
from gateway_svc.conversations.files.store import FileConversations
from gateway_svc.conversations.session import SessionState

MANY = AT_ONCE + 10


def _new() -> SessionState:
    return SessionState(id=str(uuid7()), revision=1, settings=pb.SessionSettings())


async def test_sessions_are_made_opened_and_read_while_others_wait_for_the_disk(tmp_path, monkeypatch):
    """A turn that begins must not wait for those that begin or end on a disk that takes its time."""
    home = FileConversations(tmp_path)
    waiting, go_on = list[str](), threading.Event()
    write = session_file.write

    def write_slowly(*args, synced, **more):
        if synced:
            waiting.append("one")
            assert go_on.wait(60)
        write(*args, synced=synced, **more)

    monkeypatch.setattr(session_file, "write", write_slowly)
    slow = [asyncio.create_task(home.create(_new(), synced=True)) for _ in range(MANY)]
    try:
        async with asyncio.timeout(60):
            while len(waiting) < AT_ONCE:
                await asyncio.sleep(0.01)
        state = _new()
        await asyncio.wait_for(home.create(state, synced=False), 60)
        lease = await asyncio.wait_for(home.open(state.id), 60)
        assert lease.state.id == state.id
        await lease.close()
    finally:
        go_on.set()
        await asyncio.wait(slow)
    assert {task.exception() for task in slow} == {None}


def test_who_asks_while_a_folder_is_synced_shares_the_next_sync(tmp_path, monkeypatch):
    saves, synced = Saves(synced=True), list[Path]()
    syncing, go_on = threading.Event(), threading.Event()

    def sync(folder: Path) -> None:
        synced.append(folder)
        syncing.set()
        assert go_on.wait(60)

    monkeypatch.setattr(saving, "sync_folder", sync)
    first = threading.Thread(target=saves.sync, args=([tmp_path],))
    first.start()
    assert syncing.wait(60)
    folder = saves._folders[tmp_path]
    others = [threading.Thread(target=saves.sync, args=([tmp_path],)) for _ in range(20)]
    for thread in others:
        thread.start()
    while folder._asked < 21:
        pass
    go_on.set()
    for thread in [first, *others]:
        thread.join()
    assert synced == [tmp_path] * 2, "what began before the others had asked is not theirs"
    saves.sync([tmp_path])
    assert len(synced) == 3
    del folder
    assert not saves._folders


def test_a_sync_that_fails_is_tried_again_for_each_who_waits(tmp_path, monkeypatch):
    saves, tries = Saves(synced=True), iter([OSError("no disk"), None])

    def sync(folder: Path) -> None:
        if error := next(tries):
            raise error

    monkeypatch.setattr(saving, "sync_folder", sync)
    with pytest.raises(OSError, match="no disk"):
        saves.sync([tmp_path])
    saves.sync([tmp_path])
