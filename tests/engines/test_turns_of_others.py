"""Whoever else runs has turns while an answer is read, however much comes out of a little."""

import asyncio
import gzip
import json
from typing import Any

import pytest

from gateway_svc.engines.http1.reading import ResponseReader
from gateway_svc.engines.openai.response_answer import ResponseAnswer, _Item
from gateway_svc.engines.wire import http
from gateway_svc.engines.wire.names import WireNames
from gateway_svc.engines.wire.streams import AnswerDecoder
from gateway_svc.errors import EngineError
from service_kit.bounds import CALLS, Exceeded
from tests.engines.asking import ask, raw_server, response
from tests.engines.test_foreign_shapes import HI, STOP, engine_of

MIB = 2**20


class Others:
    """Another task, which looks how much is done between two of its turns."""

    def __init__(self) -> None:
        self.done = self.most = 0

    async def look(self) -> None:
        while True:
            self.most, self.done = max(self.most, self.done), 0
            await asyncio.sleep(0)


async def test_lines_without_anything_in_them_leave_turns_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    read, most = 0, 0

    class Decoder(AnswerDecoder):
        def feed(self, data: bytes) -> list[bytes]:
            nonlocal read
            read += len(data)
            return super().feed(data)

    async def look() -> None:
        nonlocal read, most
        while True:
            most, read = max(most, read), 0
            await asyncio.sleep(0)

    def event(payload: Any) -> bytes:
        return f"data: {json.dumps(payload)}\n\n".encode()

    monkeypatch.setattr(http, "AnswerDecoder", Decoder)
    packed = gzip.compress(event(HI) + b":\n" * MIB + event(STOP) + b"data: [DONE]\n\n")
    async with raw_server(response(packed, "text/event-stream\r\nContent-Encoding: gzip")) as server:
        other = asyncio.create_task(look())
        pieces, _ = await ask(engine_of("chat", server.url), model="m")
        other.cancel()
    assert pieces == ["hi"]
    assert 0 < most <= 128 * 1024


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 2900 + response(b"{}", "application/json"),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 100_000 + b"0\r\n\r\n",
    ],
    ids=["informational heads", "small chunks"],
)
async def test_what_http_makes_of_many_small_parts_leaves_turns_to_others(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    others, read, feed = Others(), 0, ResponseReader.feed

    def counted(self: ResponseReader, data: bytes) -> list[bytes]:
        nonlocal read
        read += len(data)
        others.done += len(data)
        return feed(self, data)

    monkeypatch.setattr(ResponseReader, "feed", counted)
    async with raw_server(sent) as server:
        other = asyncio.create_task(others.look())
        with pytest.raises(EngineError):
            await ask(engine_of("chat", server.url), model="m")
        other.cancel()
    assert read > 100_000
    assert 0 < others.most <= 16 * 1024


async def test_events_that_take_long_leave_turns_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few they are: with no time for any of them, each is followed by a turn of the others."""
    others, read = Others(), http._read

    def counted(payload: bytes) -> Any:
        others.done += 1
        return read(payload)

    monkeypatch.setattr(http, "_read", counted)
    monkeypatch.setattr(http, "_SLICE_S", -1.0)
    events = b"".join(f"data: {json.dumps(payload)}\n\n".encode() for payload in [*[HI] * 100, STOP])
    async with raw_server(response(events, "text/event-stream")) as server:
        other = asyncio.create_task(others.look())
        await ask(engine_of("chat", server.url), model="m")
        other.cancel()
    assert others.most == 1


@pytest.mark.parametrize("at_once", [False, True])
def test_an_item_of_a_response_is_not_sought_among_all_others(monkeypatch: pytest.MonkeyPatch, at_once: bool) -> None:
    looked, may_be = 0, _Item.may_be

    def counted(self: _Item, kind: str, call_id: str) -> bool:
        nonlocal looked
        looked += 1
        return may_be(self, kind, call_id)

    monkeypatch.setattr(_Item, "may_be", counted)
    answer = ResponseAnswer(WireNames(), "here")
    told = [{"type": "reasoning", "id": f"r{at}", "summary": [{"text": "so"}]} for at in range(1000)]
    done = {"status": "completed", "output": told}
    if not at_once:
        for at, item in enumerate(told):
            answer.take({"type": "response.output_item.done", "output_index": at, "item": item})
    answer.take({"type": "response.completed", "response": done})
    assert answer.complete
    assert looked <= 2 * len(told)


def test_calls_of_a_response_are_counted_as_they_come() -> None:
    answer = ResponseAnswer(WireNames(), "here")
    items = [
        {"type": "function_call", "call_id": f"c{at}", "name": "read", "arguments": "{}"}
        for at in range(CALLS.limit + 1)
    ]
    events = [{"type": "response.output_item.done", "output_index": at, "item": item} for at, item in enumerate(items)]
    with pytest.raises(Exceeded) as caught:
        list(map(answer.take, events))
    assert caught.value.bound == CALLS
