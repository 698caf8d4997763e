"""Whoever else runs has turns while a large answer of an MCP server is read."""

import asyncio
import json

import pytest

from gateway_svc.tools.mcp.wire import LARGE_BYTES, PAUSE_SECONDS, Unreadable, read_json
from service_kit.time_slice import TURNS
from tests.support.others import others


@pytest.mark.parametrize(
    ("line", "passes"),
    [
        (json.dumps("x" * LARGE_BYTES), 2),
        (json.dumps("\ud83d" * LARGE_BYTES), 3),
        (json.dumps([[]] * LARGE_BYTES)[:-1], 0),
        ("[" + "x" * LARGE_BYTES, 1),
    ],
    ids=["text", "half characters", "too many values", "no JSON"],
)
async def test_they_have_one_between_two_passes(line: str, passes: int) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count())
    try:
        await read_json(line.encode())
    except Unreadable:
        assert passes < 2
    other.cancel()
    assert turns >= passes


@pytest.mark.parametrize(("size", "pauses"), [(LARGE_BYTES - 2, 0), (LARGE_BYTES, 3)], ids=["small", "large"])
async def test_a_call_that_came_meanwhile_has_all_the_turns_of_a_pause(
    monkeypatch: pytest.MonkeyPatch, size: int, pauses: int
) -> None:
    a_pause = 100 * TURNS
    """So many turns of the loop it lasts on a clock that goes on with each: giving way alone is a few."""
    async with others() as looking:
        with monkeypatch.context() as clock:
            clock.setattr(asyncio.get_running_loop(), "time", lambda: looking.turns * PAUSE_SECONDS / a_pause)
            await read_json(json.dumps("x" * size).encode())
    assert pauses * a_pause <= looking.turns <= pauses * (a_pause + 2 * TURNS)
