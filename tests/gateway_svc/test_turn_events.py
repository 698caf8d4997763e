"""What a client hears: everything, in order, with text joined."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.turns.events import TurnEvents
from tests.support.others import each_look_takes, others


def event(number: int) -> pb.TurnEvent:
    return pb.TurnEvent(step_finished=pb.StepFinished(duration_ms=number))


async def stream_of(items: list[str | int], *, pause_after: int) -> list[pb.TurnEvent]:
    events = TurnEvents()

    async def put() -> None:
        for index, item in enumerate(items):
            if isinstance(item, str):
                events.put_text(item)
            else:
                events.put(event(item))
            if index == pause_after:
                await asyncio.sleep(0)
        events.close()

    task = asyncio.create_task(put())
    streamed = [event async for event in events.stream()]
    await task
    return streamed


@given(st.lists(st.text(min_size=1, max_size=5) | st.integers(1, 99), max_size=20), st.integers(0, 20))
def test_every_event_comes_in_order_and_no_text_is_lost(items, pause_after):
    streamed = asyncio.run(stream_of(items, pause_after=pause_after))
    heard: list[str | int] = []
    for event in streamed:
        if event.HasField("text_delta"):
            heard += event.text_delta.text
        else:
            heard.append(event.step_finished.duration_ms)
    said: list[str | int] = []
    for item in items:
        said += item if isinstance(item, str) else [item]
    assert heard == said
    assert [event.sequence for event in streamed] == list(range(1, len(streamed) + 1))


async def test_pieces_that_come_at_once_are_one_message():
    streamed = await stream_of(["a", "b", "c", 1, "d", "e"], pause_after=99)
    assert [e.WhichOneof("event") for e in streamed] == ["text_delta", "step_finished", "text_delta"]
    assert streamed[0].text_delta.text == "abc"


async def test_each_event_tells_its_step_and_its_time_and_text_belongs_to_the_step_that_it_came_in():
    events, before_ms = TurnEvents(), time.time_ns() // 1_000_000
    events.put_text("ahead")
    for number in (1, 2):
        events.begin_step()
        events.put_text(f"in {number}")
    events.put(event(1))
    events.close()
    heard = [event async for event in events.stream()]
    assert [(event.step, event.text_delta.text) for event in heard] == [(0, "ahead"), (1, "in 1"), (2, "in 2"), (2, "")]
    assert before_ms <= heard[0].at_ms <= heard[-1].at_ms <= time.time_ns() // 1_000_000


async def test_halves_of_a_character_are_put_together_and_a_lone_half_is_replaced():
    [event] = await stream_of(["\ud83d", "\ude00 \ud83d"], pause_after=99)
    assert event.text_delta.text == "😀 �"


async def test_the_first_piece_goes_at_once_and_the_next_ones_are_gathered(monkeypatch):
    monkeypatch.setattr("gateway_svc.turns.events.COALESCE_SECONDS", 3600.0)
    events = TurnEvents()
    heard = events.stream()
    events.put_text("a")
    assert (await anext(heard)).text_delta.text == "a"
    coming = asyncio.ensure_future(anext(heard))
    for piece in "bcd":
        events.put_text(piece)
        await asyncio.sleep(0)
    assert not coming.done()
    coming.cancel()
    events.close()
    assert [event.text_delta.text async for event in events.stream(after=1)] == ["bcd"]


@pytest.mark.parametrize("second", ["\ude00", "x"])
async def test_half_a_character_waits_for_the_other_half(second):
    events = TurnEvents()
    heard = events.stream()
    events.put_text("a\ud83d")
    assert (await anext(heard)).text_delta.text == "a"
    events.put_text(second)
    assert (await anext(heard)).text_delta.text == ("😀" if second == "\ude00" else "\ufffdx")
    await heard.aclose()


async def test_who_puts_much_waits_until_the_client_has_read_it():
    events = TurnEvents()
    for _ in range(16):
        events.put_text("x" * 2**16)
    waiting = asyncio.create_task(events.writable())
    stream = events.stream(holds_up=True)
    first = await anext(stream)
    await asyncio.sleep(0.01)
    assert not waiting.done(), "what was handed out is not read before more is asked for"
    events.put_text("y")
    second = await anext(stream)
    await asyncio.wait_for(waiting, 30)
    assert (len(first.text_delta.text), second.text_delta.text) == (2**20, "y")
    await stream.aclose()


async def test_others_have_their_turn_while_many_clients_hear_what_they_missed(monkeypatch):
    """Their connection may have broken, or taken up again what it held."""
    each_look_takes(monkeypatch, 0.3)
    turns = [TurnEvents() for _ in range(20)]
    async with others() as beside:

        async def hear(events: TurnEvents) -> int:
            heard = 0
            async for _ in events.stream():
                heard, beside.done = heard + 1, beside.done + 1
            return heard

        for events in turns:
            for number in range(10):
                events.put(event(number))
            events.close()
        assert await asyncio.gather(*map(hear, turns)) == [10] * 20
    assert 2 <= beside.most <= 5
