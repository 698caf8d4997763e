"""Whoever else runs has turns while what an MCP server sends is read, all of which may be there at once."""

import asyncio
from collections.abc import AsyncIterator, Collection
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from gateway_svc.tools.mcp.client import Client
from gateway_svc.tools.mcp.http import _body, _events, _Place
from gateway_svc.tools.mcp.listing import list_tools
from gateway_svc.tools.mcp.process import _Pipes
from tests.support.others import Others, count_ways_given, each_look_takes, others


class Counted(Client):
    """Counts the lines that it takes."""

    def __init__(self, beside: Others) -> None:
        super().__init__("t", lambda _method: None)
        self._beside = beside

    async def take(self, line: bytes, asked: Collection[int] | None = None) -> bool:
        self._beside.done += 1
        return True


def pipes(reader: asyncio.StreamReader) -> _Pipes:
    process: Any = SimpleNamespace(stdin=object(), stdout=reader)
    return _Pipes(process)


def fed(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def test_lines_of_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    each_look_takes(monkeypatch, 0.3)
    async with others() as beside:
        await pipes(fed(b"{}\n" * 10_000)).read(Counted(beside), "t")
    assert 2 <= beside.most <= 4


async def test_a_program_that_writes_slowly_is_waited_for_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    each_look_takes(monkeypatch, 0.6)
    given, reader, heard = count_ways_given(monkeypatch), asyncio.StreamReader(), asyncio.Semaphore(0)

    class Hearing(Client):
        async def take(self, line: bytes, asked: Collection[int] | None = None) -> bool:
            heard.release()
            return True

    reading = asyncio.create_task(pipes(reader).read(Hearing("t", lambda _method: None), "t"))
    for _ in range(50):
        await asyncio.sleep(0)
        reader.feed_data(b"{}\n")
        await heard.acquire()
    reader.feed_eof()
    await reading
    assert given == []


async def in_pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def test_events_of_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one piece."""
    each_look_takes(monkeypatch, 0.3)
    response = httpx2.Response(200, content=in_pieces(b"data: {}\n\n" * 1_000, 65_536))
    async with others() as beside:
        async for _ in _events(response, _Place()):
            beside.done += 1
    assert 1 <= beside.most <= 4


async def test_pieces_of_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    each_look_takes(monkeypatch, 0.3)
    async with others() as beside:

        async def counted() -> AsyncIterator[bytes]:
            async for piece in in_pieces(b":" * 1_000, 1):
                beside.done += 1
                yield piece

        assert len(await _body(httpx2.Response(200, content=counted()))) == 1_000
    assert 1 <= beside.most <= 4


async def test_tools_of_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema takes time, and there may be many."""
    each_look_takes(monkeypatch, 2)

    class Listed(Client):
        async def request(self, *_: Any) -> dict[str, Any]:
            return {"tools": [Tool(name=f"t{number}") for number in range(100)]}

    async def call(*_: Any) -> Any:
        raise AssertionError

    async with others() as beside:

        class Tool(dict[str, Any]):
            def get(self, name: str, *default: Any) -> Any:
                beside.done += name == "name"
                return super().get(name, *default)

        await list_tools(Listed("t", lambda _method: None), "t", call, 1.0)
    assert beside.most == 1
