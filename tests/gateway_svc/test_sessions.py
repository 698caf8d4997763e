"""Who holds a session, and that a next one can."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway_svc.errors import NotFound
from gateway_svc.turns.sessions import Sessions, SessionState
from gateway_svc.turns.transcript import Transcript, read_state


async def test_who_comes_after_a_cancelled_one_finds_the_session_closed(tmp_path, monkeypatch):
    """Also when it is cancelled while a thread is still reading the transcript, which cannot be stopped."""
    sessions = Sessions(tmp_path)
    state = SessionState(id="")
    sessions.create(state)
    reading, go_on = threading.Event(), threading.Event()
    read = Transcript.read

    def read_slowly(transcript: Transcript):
        reading.set()
        assert go_on.wait(30)
        return read(transcript)

    monkeypatch.setattr(Transcript, "read", read_slowly)

    async def hold() -> None:
        async with sessions.hold(state.id) as session:
            session.state.turns += 1
            session.save()

    for _ in range(5):
        first, second = asyncio.create_task(hold()), asyncio.create_task(hold())
        while not reading.is_set():
            await asyncio.sleep(0.001)
        first.cancel()
        await asyncio.sleep(0)
        first.cancel()
        go_on.set()
        await second
        assert first.cancelled()
        reading.clear()
        go_on.clear()
    assert sessions.get(state.id).turns == 5


def test_a_transcript_that_cannot_be_read_is_closed(tmp_path):
    """Its lock would be held for as long as somebody has the error."""
    sessions = Sessions(tmp_path)
    path = tmp_path / "sessions" / "s1.jsonl"
    Transcript.create(path).close()

    async def hold() -> None:
        async with sessions.hold("s1"):
            pytest.fail("it was never begun")

    for _ in range(2):
        with pytest.raises(NotFound, match="never begun"):
            asyncio.run(hold())
    Transcript.open(path).close()


async def test_a_listing_reads_no_file_on_the_event_loop(tmp_path, monkeypatch):
    sessions, seen = Sessions(tmp_path), set[int]()

    def read(path: Path) -> Any:
        seen.add(threading.get_ident())
        return read_state(path)

    sessions.create(SessionState(id=""))
    monkeypatch.setattr("gateway_svc.turns.sessions.read_state", read)
    assert len(await sessions.list_page(10, None)) == 1
    assert seen
    assert threading.get_ident() not in seen
