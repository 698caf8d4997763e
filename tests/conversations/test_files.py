"""A session's files: nothing that was said is lost by a full disk, a kill, or damage around it."""

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from uuid_utils import uuid7

from gateway_svc.conversations.files import session_file, transcript
from gateway_svc.conversations.files.store import FileConversations
from gateway_svc.conversations.history import LOST
from gateway_svc.conversations.session import SessionState
from gateway_svc.errors import Busy, Damaged, DiskFull
from gateway_svc.messages import AssistantMessage, Message, ToolMessage, UserMessage
from gateway_svc.turns.sessions import Sessions
from recording.calls import ToolCall

CALL = ToolCall("row-1", "call_1", "bash", '{"command": "ls"}')
SAID: list[Message] = [
    UserMessage("look"),
    AssistantMessage("", "", (CALL,)),
    ToolMessage("call_1", "bash", "a file"),
    AssistantMessage("There is a file."),
    UserMessage("thanks"),
    AssistantMessage("You are welcome."),
]


async def made(state_dir: Path, said: list[Message] = SAID, *, prompt: str = "") -> str:
    home = FileConversations(state_dir)
    state = SessionState(id=str(uuid7()), revision=1, settings=pb.SessionSettings(system_prompt=prompt))
    await home.create(state, synced=True)
    lease = await home.open(state.id)
    for message in said:
        lease.append(message)
    await lease.save()
    await lease.close()
    return state.id


def file_of(state_dir: Path, session_id: str, kind: str) -> Path:
    return state_dir / "sessions" / "owner-" / session_id[:7] / f"{session_id}.{kind}"


async def read(state_dir: Path, session_id: str) -> tuple[list[Message], str]:
    lease = await FileConversations(state_dir).open(session_id)
    lease.give_up()
    return lease.history.messages, lease.history.unreadable


def records_of(path: Path) -> list[tuple[int, int]]:
    """Where each record of a conversation begins and ends."""
    data = path.read_bytes()
    starts = [at for at in range(len(data)) if data.startswith(transcript_magic(), at)]
    return list(zip(starts, [*starts[1:], len(data)], strict=True))


def transcript_magic() -> bytes:
    return b"\xffrec"


async def test_only_its_owner_can_read_it(tmp_path):
    session_id = await made(tmp_path)
    for path in (tmp_path / "sessions").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert file_of(tmp_path, session_id, "session").exists()


@pytest.mark.long
async def test_a_torn_last_record_is_cut_and_the_rest_stays(tmp_path):
    """As a kill in the middle of its write leaves it: nobody was told of it."""
    session_id = await made(tmp_path, SAID[:5])
    path = file_of(tmp_path, session_id, "conversation")
    whole = path.read_bytes()
    lease = await FileConversations(tmp_path).open(session_id)
    lease.append(SAID[5])
    lease.give_up()
    longer = path.read_bytes()
    for size in range(len(whole), len(longer)):
        path.write_bytes(longer[:size])
        lease = await FileConversations(tmp_path).open(session_id)
        assert (lease.history.messages, lease.history.unreadable) == (SAID[:5], "")
        lease.append(AssistantMessage("again"))
        lease.give_up()
        assert await read(tmp_path, session_id) == ([*SAID[:5], AssistantMessage("again")], "")


@pytest.mark.parametrize("hit", range(len(SAID)))
async def test_a_damaged_record_costs_itself_alone_and_is_told(tmp_path, hit):
    session_id = await made(tmp_path)
    path = file_of(tmp_path, session_id, "conversation")
    data = bytearray(path.read_bytes())
    start, stop = records_of(path)[hit]
    data[(start + stop) // 2] ^= 1
    path.write_bytes(data)
    history, unreadable = await read(tmp_path, session_id)
    lost = SAID[:hit] + SAID[hit + 1 :]
    rest = iter(history)
    assert all(any(message == other for other in rest) for message in lost)
    assert LOST in str(history) or hit == len(SAID) - 1
    assert "damaged" in unreadable
    lease = await FileConversations(tmp_path).open(session_id)
    lease.append(UserMessage("what was that?"))
    lease.give_up()
    history, told = await read(tmp_path, session_id)
    assert history[-1] == UserMessage("what was that?")
    assert told == unreadable, "once"


async def test_an_end_that_a_power_cut_took_is_told(tmp_path):
    session_id = await made(tmp_path)
    path = file_of(tmp_path, session_id, "conversation")
    os.truncate(path, records_of(path)[4][0])
    history, unreadable = await read(tmp_path, session_id)
    assert (history, unreadable) == (SAID[:4], "its last 2 records are missing")
    path.unlink()
    assert await read(tmp_path, session_id) == ([], "its last 6 records are missing")


async def test_a_session_that_lacks_what_it_is_costs_itself_alone(tmp_path, capsys):
    """Not a listing, nor another session: an empty file, one that is cut, and one with a bit that fell over."""
    whole = await made(tmp_path)
    good = file_of(tmp_path, whole, "session").read_bytes()
    flipped = bytearray(good)
    flipped[60] ^= 1
    broken = []
    for data in (b"", good[: len(good) // 2], bytes(flipped), b"{}", b"\xff" * 100):
        broken.append(await made(tmp_path))
        file_of(tmp_path, broken[-1], "session").write_bytes(data)
    home = FileConversations(tmp_path)
    assert [state.id for state in (await home.list_page(9, None, "")).states] == [whole]
    for session_id in broken:
        with pytest.raises(Damaged, match=session_id):
            await home.state(session_id, None)
        with pytest.raises(Damaged, match=session_id):
            await home.open(session_id)
        await home.remove(session_id)
    assert await home.abandoned() == []


async def test_a_prompt_is_kept_once_however_often_its_session_is_saved(tmp_path):
    prompt = "x" * 200_000
    session_id = await made(tmp_path, prompt=prompt)
    home = FileConversations(tmp_path)
    for _ in range(6):
        lease = await home.open(session_id)
        for _ in range(50):
            lease.append(AssistantMessage("step"))
            lease.note_sums()
        await lease.save()
        await lease.close()
    taken = sum(path.stat().st_size for path in (tmp_path / "sessions").rglob("*") if path.is_file())
    assert taken < len(prompt) + 6 * 50 * 600


class Disk:
    """os.write that takes as much as there is room for, and at most `most` bytes at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, room: int = 2**60, most: int = 2**60) -> None:
        self.room = room
        self._most = most
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self._write(fd, bytes(data[: min(self.room, self._most)]))
        self.room -= taken
        return taken


async def test_short_writes_keep_the_whole(tmp_path, monkeypatch):
    Disk(monkeypatch, most=7)
    session_id = await made(tmp_path, prompt="be brief")
    monkeypatch.undo()
    assert await read(tmp_path, session_id) == (SAID, "")
    assert (await FileConversations(tmp_path).state(session_id, None)).settings.system_prompt == "be brief"


@pytest.mark.parametrize("room", [0, 1, 40, 300])
async def test_a_message_that_a_full_disk_refuses_is_not_there_and_the_session_goes_on(tmp_path, monkeypatch, room):
    session_id = await made(tmp_path)
    lease = await FileConversations(tmp_path).open(session_id)
    disk = Disk(monkeypatch, room=room)
    with pytest.raises(DiskFull, match="No space left on device"):
        lease.append(UserMessage("x" * 500))
    with pytest.raises(DiskFull):
        await lease.save()
    assert lease.history.messages == SAID
    disk.room = 2**60
    lease.append(UserMessage("now"))
    await lease.save()
    await lease.close()
    assert await read(tmp_path, session_id) == ([*SAID, UserMessage("now")], "")
    assert list((tmp_path / "sessions").rglob("*.draft")) == []


@pytest.mark.long
async def test_a_full_disk_at_any_write_leaves_every_session_readable(tmp_path, monkeypatch):
    """The disk is full for a moment at one write after another, from the making of a session on."""
    disk = Disk(monkeypatch)
    for refused in range(0, 3000, 37):
        home = FileConversations(tmp_path)
        state, kept = SessionState(id=str(uuid7()), revision=1), list[Message]()
        disk.room = refused
        try:
            await home.create(state, synced=True)
            lease = await home.open(state.id)
        except DiskFull:
            disk.room = 2**60
            continue
        for message in SAID:
            try:
                lease.append(message)
                kept.append(message)
                await lease.save()
            except DiskFull:
                disk.room = 2**60
        await lease.close()
        disk.room = 2**60
        assert await read(tmp_path, state.id) == (kept, "")
        assert (await home.list_page(1, None, None)).states[0].id == state.id


async def test_a_listing_reads_no_file_on_the_event_loop(tmp_path, monkeypatch):
    seen, read_file = set[int](), session_file.read

    def seeing(*args, **kwargs):
        seen.add(threading.get_ident())
        return read_file(*args, **kwargs)

    await made(tmp_path)
    monkeypatch.setattr(session_file, "read", seeing)
    assert len((await FileConversations(tmp_path).list_page(10, None, None)).states) == 1
    assert seen
    assert threading.get_ident() not in seen


async def test_a_page_looks_at_no_more_names_than_it_needs(tmp_path, monkeypatch):
    """However many sessions there are: those of other times, and of other callers, are not looked at."""
    home, looked = FileConversations(tmp_path), list[str]()
    for number in range(100):
        for owner in ("ada", "bob"):
            session_id = f"019{number:04d}-0000-7000-8000-000000000000"
            await home.create(SessionState(id=session_id, revision=1, owner=owner), synced=False)
    listdir = os.listdir

    def looking(folder):
        looked.append(str(folder))
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", looking)
    assert len((await home.list_page(10, None, "ada")).states) == 10
    assert len(looked) <= 2 + 11 + 1, "the folders of the owners, of the page and one behind, and who holds sessions"
    assert not any("owner-bob" in folder for folder in looked)


async def test_a_turn_with_its_session_in_memory_reads_nothing_of_what_was_said(tmp_path, monkeypatch):
    session_id = await made(tmp_path)
    home = FileConversations(tmp_path)
    await (await home.open(session_id)).close()
    monkeypatch.setattr(transcript, "read", lambda *_: pytest.fail("it is in memory"))
    lease = await home.open(session_id)
    assert lease.history.messages == SAID
    await lease.close()


async def test_the_memory_keeps_what_was_used_last_and_no_more_than_it_may(tmp_path):
    home = FileConversations(tmp_path, memory_bytes=100_000)
    ids = [await made(tmp_path, [UserMessage("x" * 30_000)]) for _ in range(5)]
    for session_id in ids:
        await (await home.open(session_id)).close()
    assert [session_id in home._memory for session_id in ids] == [False, False, True, True, True]
    await (await home.open(ids[2])).close()
    await (await home.open(ids[0])).close()
    assert [session_id in home._memory for session_id in ids] == [True, False, True, False, True]


async def test_who_comes_after_a_cancelled_one_finds_the_session_closed(tmp_path, monkeypatch):
    """Also when it is cancelled while a thread is still reading the conversation, which cannot be stopped."""
    sessions = Sessions(FileConversations(tmp_path))
    state = SessionState(id="")
    await sessions.create(state)
    reading, go_on = threading.Event(), threading.Event()
    read_file = transcript.read

    def read_slowly(*args):
        reading.set()
        assert go_on.wait(30)
        return read_file(*args)

    monkeypatch.setattr(transcript, "read", read_slowly)

    async def hold() -> None:
        async with sessions.hold(state.id) as session:
            session.state.turns += 1
            await session.save()

    first, second = asyncio.create_task(hold()), asyncio.create_task(hold())
    while not reading.is_set():
        await asyncio.sleep(0.001)
    first.cancel()
    await asyncio.sleep(0)
    first.cancel()
    go_on.set()
    await second
    assert first.cancelled()
    assert (await sessions.get(state.id)).turns == 1


async def test_a_closed_session_is_free_though_a_process_that_is_being_started_has_its_lock(tmp_path):
    session_id = await made(tmp_path)
    for status in (common_pb2.SESSION_STATUS_IDLE, common_pb2.SESSION_STATUS_RUNNING):
        home = FileConversations(tmp_path)
        lease = await home.open(session_id)
        lease.state.status = status
        await lease.save()
        of_the_other = os.dup(lease._hold._fd)  # as by fork(), before exec()
        with pytest.raises(Busy):
            await home.open(session_id)
        await lease.close()
        await (await home.open(session_id)).close()
        os.close(of_the_other)


@pytest.mark.parametrize("synced", [True, False])
async def test_what_was_said_is_on_the_disk_before_what_the_session_is(tmp_path, monkeypatch, synced):
    """At each save, which a turn's begin and end are; GATEWAY_CONVERSATIONS_SYNC=never leaves it to the system."""
    done = list[str]()
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)

        def noting(fd, real=real):
            done.append(Path(f"/proc/self/fd/{fd}").readlink().suffix)
            real(fd)

        monkeypatch.setattr(os, name, noting)
    home = FileConversations(tmp_path, synced=synced)
    lease = await home.open(await made(tmp_path))
    done.clear()
    lease.append(UserMessage("go"))
    await lease.save()
    await lease.close()
    assert done[:1] == ([".conversation"] if synced else [])
    assert len(done) == (2 if synced else 0)
