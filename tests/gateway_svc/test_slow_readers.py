"""Clients of turns that read slowly, when the events that wait for all of them are too many."""

import asyncio
from contextlib import aclosing

import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.conversations.session import SessionState
from gateway_svc.errors import ReadTooSlowly
from gateway_svc.turns import kept
from gateway_svc.turns.events import EVENT_BYTES, MAX_PIECES, TurnEvents
from gateway_svc.turns.kept import KeptTurns

LARGE = "x" * 10_000


def put(events: TurnEvents) -> None:
    events.put(pb.TurnEvent(text_delta=pb.TextDelta(text=LARGE)))


@pytest.mark.parametrize("keep_on_disconnect", [False, True])
async def test_the_slowest_are_cut_off_and_those_who_read_go_on(monkeypatch, keep_on_disconnect):
    """Nothing of what they did not read stays. Their turns end, but those that run on without a client."""
    monkeypatch.setattr(kept, "MAX_KEPT_BYTES", 10 * len(LARGE))
    turns = KeptTurns()
    slow, quick = (
        turns.begin(SessionState(id=name), "", keep_on_disconnect=keep_on_disconnect) for name in ("slow", "quick")
    )
    for turn in (slow, quick):
        turn.task = asyncio.create_task(asyncio.Event().wait())  # type: ignore[arg-type] # any task
    async with (
        aclosing(slow.events.stream(holds_up=True)) as unread,
        aclosing(quick.events.stream(holds_up=True)) as read,
    ):
        put(slow.events)
        assert (await anext(unread)).sequence == 1
        for number in range(1, 40):
            put(slow.events)
            put(quick.events)
            assert (await anext(read)).sequence == number
        assert slow.events.kept_bytes + quick.events.kept_bytes < 11 * len(LARGE)
        with pytest.raises(ReadTooSlowly):
            await anext(unread)
    await asyncio.sleep(0)
    assert slow.task is not None
    assert slow.task.cancelled() is not keep_on_disconnect
    assert quick.task is not None
    assert not quick.task.cancelled()
    for turn in (slow, quick):
        turn.cancel()


async def test_text_that_waits_is_joined_before_it_takes_more_than_its_characters():
    events = TurnEvents()
    for _ in range(10 * MAX_PIECES):
        events.put_text("λ")
    assert len(events._text) < MAX_PIECES
    assert events.kept_bytes < 10 * (2 * MAX_PIECES + 2 * EVENT_BYTES)
