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
from gateway_svc.messages import UserMessage
from service_kit.bounds import CALLS, Exceeded
from tests.engines.asking import ask, raw_server, response
from tests.engines.test_foreign_shapes import HI, STOP, engine_of
from tests.support.listening import listening
from tests.support.others import count_ways_given, each_look_takes, others

MIB = 2**20


@pytest.mark.long
async def test_lines_without_anything_in_them_leave_turns_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no time for any piece: 64 KiB of such lines take 18 ms."""
    each_look_takes(monkeypatch, 2)

    def event(payload: Any) -> bytes:
        return f"data: {json.dumps(payload)}\n\n".encode()

    packed = gzip.compress(event(HI) + b":\n" * MIB + event(STOP) + b"data: [DONE]\n\n")
    async with (
        others() as beside,
        raw_server(response(packed, "text/event-stream\r\nContent-Encoding: gzip")) as server,
    ):

        class Decoder(AnswerDecoder):
            def feed(self, data: bytes) -> list[bytes]:
                beside.done += len(data)
                return super().feed(data)

        monkeypatch.setattr(http, "AnswerDecoder", Decoder)
        pieces, _ = await ask(engine_of("chat", server.url), model="m")
    assert pieces == ["hi"]
    assert 0 < beside.most <= 128 * 1024


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
    read, feed = 0, ResponseReader.feed
    async with others() as beside, raw_server(sent) as server:

        def counted(self: ResponseReader, data: bytes) -> list[bytes]:
            nonlocal read
            read += len(data)
            beside.done += len(data)
            return feed(self, data)

        monkeypatch.setattr(ResponseReader, "feed", counted)
        with pytest.raises(EngineError):
            await ask(engine_of("chat", server.url), model="m")
    assert read > 100_000
    assert 0 < beside.most <= 16 * 1024


async def test_events_that_take_long_leave_turns_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few they are: with no time for any of them, each is followed by a turn of the others."""
    read = http._read
    each_look_takes(monkeypatch, 2)
    events = b"".join(f"data: {json.dumps(payload)}\n\n".encode() for payload in [*[HI] * 100, STOP])
    async with others() as beside, raw_server(response(events, "text/event-stream")) as server:

        def counted(payload: bytes) -> Any:
            beside.done += 1
            return read(payload)

        monkeypatch.setattr(http, "_read", counted)
        await ask(engine_of("chat", server.url), model="m")
    assert beside.most == 1


async def test_an_answer_that_comes_slowly_gives_way_by_waiting_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event is sent when the one before it has been taken."""
    each_look_takes(monkeypatch, 0.3)
    given = count_ways_given(monkeypatch)
    taken = asyncio.Semaphore(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(""))
        for _ in range(50):
            writer.write(f"data: {json.dumps(HI)}\n\n".encode())
            await taken.acquire()
        writer.write(f"data: {json.dumps(STOP)}\n\n".encode())

    async with listening(serve) as port:
        engine = engine_of("chat", f"http://127.0.0.1:{port}")
        async for _ in engine.step("m", [engine.encode_message(UserMessage("hello"))], engine.encode_tools([])):
            taken.release()
        await engine.aclose()
    assert given == []


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
