"""Whoever else runs has turns while an answer is read, however much comes out of a little."""

import asyncio
import gzip
import json
from typing import Any

import pytest

from gateway_svc.engines.wire import http
from gateway_svc.engines.wire.streams import AnswerDecoder
from tests.engines.asking import ask, raw_server, response
from tests.engines.test_foreign_shapes import HI, STOP, engine_of

MIB = 2**20


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
