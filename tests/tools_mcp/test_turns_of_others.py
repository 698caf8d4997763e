"""Whoever else runs has turns while the answer of an MCP server is read."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from gateway_svc.tools.mcp.http import _chunks


@pytest.mark.parametrize(("size", "number"), [(1, 3_200), (65_536, 7)])
async def test_they_have_one_after_so_many_pieces_or_bytes(size: int, number: int) -> None:
    turns = 0

    async def content() -> AsyncIterator[bytes]:
        for _ in range(number):
            yield b":" * size

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(count())
    async for _ in _chunks(httpx2.Response(200, content=content())):
        pass
    other.cancel()
    assert turns >= min(number, 100) - 1
