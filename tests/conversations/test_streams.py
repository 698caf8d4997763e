"""Answers of many parts between gateways: each part once, bounded, and ended when who asked has left."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

import pytest

from gateway_svc.conversations.postgres import streams
from gateway_svc.conversations.postgres.calls import Answer, Call, Calls
from gateway_svc.conversations.postgres.streams import CLOSE, READ, Outgoing, StreamEnded, incoming
from gateway_svc.errors import ShuttingDown

ENOUGH_SECONDS = 60


class Source:
    """What a call answers: numbered parts of a size, as they are wanted."""

    def __init__(self, parts: int, size: int = 1, error: Exception | None = None) -> None:
        self.parts = [bytes([number]) * size for number in range(parts)]
        self.error = error
        self.given = 0
        self.is_closed = asyncio.Event()

    async def answers(self) -> AsyncGenerator[bytes, None]:
        try:
            for part in self.parts:
                self.given += 1
                yield part
            if self.error:
                raise self.error
            await asyncio.sleep(0)
        finally:
            self.is_closed.set()


class Between:
    """The calls between a gateway that asks and one that answers, without a database."""

    def __init__(self) -> None:
        self.outgoing = Outgoing(lambda error: str(error).encode())
        self.signs_of_life = 0
        self._told = set[asyncio.Task[Answer]]()

    async def ask(self, call: Call, is_enough: Any, *, to: int) -> list[Answer]:
        assert (call.method, to) == (READ, 7)
        self.signs_of_life += not json.loads(call.request)["wait"]
        return [await self.outgoing.read(call.request)]

    def tell(self, call: Call, to: int) -> None:
        assert (call.method, to) == (CLOSE, 7)
        self._told.add(asyncio.ensure_future(self.outgoing.close(call.request)))

    async def open(self, source: Source) -> AsyncGenerator[bytes, None]:
        opened = await self.outgoing.open(source.answers())
        return incoming(cast("Calls", self), opened._replace(gateway=7))


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(ENOUGH_SECONDS):
        while not holds():
            await asyncio.sleep(0.001)


async def soon(work: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(work, ENOUGH_SECONDS)


async def test_each_part_comes_once_and_in_order_and_no_more_is_kept_than_may_be() -> None:
    size = streams.MAX_BYTES // 4
    source, between = Source(20, size), Between()
    parts = await between.open(source)
    for _ in range(100):  # whoever is not held up gives all meanwhile
        await asyncio.sleep(0)
    assert source.given * size <= streams.MAX_BYTES + size
    async with aclosing(parts):
        assert [part async for part in parts] == source.parts


async def test_a_stream_that_nobody_reads_any_more_is_ended_and_who_comes_back_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "UNREAD_SECONDS", 0.05)
    source, between = Source(20, streams.MAX_BYTES), Between()
    parts = await between.open(source)
    await soon(source.is_closed.wait())
    with pytest.raises(ShuttingDown, match="has let this call go"):
        async with aclosing(parts):
            _ = [part async for part in parts]


async def test_who_cannot_take_more_shows_that_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "ALIVE_SECONDS", 0.01)
    source, between = Source(20, streams.MAX_BYTES), Between()
    parts = await between.open(source)
    async with aclosing(parts):
        taken = [await anext(parts)]
        await until(lambda: between.signs_of_life > 2)
        taken += [part async for part in parts]
    assert taken == source.parts


async def test_who_leaves_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "UNREAD_SECONDS", 3600)
    source, between = Source(20, streams.MAX_BYTES), Between()
    parts = await between.open(source)
    assert await anext(parts) == source.parts[0]
    assert not source.is_closed.is_set()
    await parts.aclose()
    await soon(source.is_closed.wait())
    await until(lambda: not between.outgoing._streams)


async def test_how_a_stream_failed_is_told_behind_what_came_before() -> None:
    source, between = Source(3, streams.MAX_BYTES, ValueError("the third was the last")), Between()
    parts, taken = await between.open(source), list[bytes]()

    async def take() -> None:
        async for part in parts:
            taken.append(part)

    with pytest.raises(StreamEnded) as ended:
        await take()
    assert (taken, ended.value.status) == (source.parts, b"the third was the last")
