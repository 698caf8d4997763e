"""Whoever else runs has turns while a large answer of an MCP server is read."""

import asyncio
import json

import pytest

from gateway_svc.tools.mcp.wire import LARGE_BYTES, Unreadable, read_json


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
