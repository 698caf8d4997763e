"""Answers of many parts between gateways: who has them keeps what was not fetched yet, and who asks fetches.

A call opens a stream, and calls read it. Each says how many parts have arrived, so that none is lost or comes twice,
and waits a while for more. Who asks no more is taken for gone.
"""

import asyncio
import json
import secrets
import struct
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import NamedTuple

from gateway_svc.conversations.postgres.calls import Answer, Call, Calls
from gateway_svc.errors import GatewayError, ShuttingDown

READ, CLOSE = "/onrecord.gateway.replicas.Streams/Read", "/onrecord.gateway.replicas.Streams/Close"
FETCH_SECONDS = 4.0
"""How long a reader waits for the next part before it asks again."""
UNREAD_SECONDS = 20.0
"""A stream that nobody has read for so long is closed."""
ALIVE_SECONDS = 5.0
"""How often a reader that cannot take more says that it is there."""
MAX_BYTES = 2**20
"""From so much on no more is kept for a reader until it has fetched that, and no more is fetched at once."""
_ID_BYTES = 16

StatusOf = Callable[[BaseException], bytes]
"""The google.rpc.Status of an error."""


class _Chunk(NamedTuple):
    parts: list[bytes]
    is_last: bool

    def encoded(self) -> bytes:
        framed = (struct.pack(">I", len(part)) + part for part in self.parts)
        return bytes([self.is_last]) + b"".join(framed)

    @classmethod
    def decoded(cls, data: bytes) -> "_Chunk":
        parts, at = list[bytes](), 1
        while at < len(data):
            (size,) = struct.unpack_from(">I", data, at)
            parts.append(data[at + 4 : at + 4 + size])
            at += 4 + size
        return cls(parts, bool(data[0]))


class _Stream:
    """One that another gateway reads."""

    def __init__(self, source: AsyncGenerator[bytes, None], status_of: StatusOf) -> None:
        self._parts = deque[bytes]()
        self._first = 0
        """How many parts have arrived, and are not kept any more."""
        self._bytes = 0
        self._is_ended = False
        self._status: bytes | None = None
        self._changed = asyncio.Event()
        self.read_at = time.monotonic()
        self.task = asyncio.create_task(self._fill(source, status_of))

    async def _fill(self, source: AsyncGenerator[bytes, None], status_of: StatusOf) -> None:
        try:
            async with aclosing(source) as parts:
                async for part in parts:
                    self._parts.append(part)
                    self._bytes += len(part)
                    self._tell()
                    while self._bytes > MAX_BYTES:
                        await self._changed.wait()
        except Exception as error:  # noqa: BLE001 - whatever ends it, who reads is told
            self._status = status_of(error)
        finally:
            self._is_ended = True
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def read(self, after: int, *, wait: bool) -> Answer:
        """What comes after so many parts: some of it, or how it ended."""
        self.read_at = time.monotonic()
        while self._parts and self._first < after:
            self._bytes -= len(self._parts.popleft())
            self._first += 1
            self._tell()
        if wait and not self._parts and not self._is_ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(FETCH_SECONDS):
                    await self._changed.wait()
        self.read_at = time.monotonic()
        parts, size = list[bytes](), 0
        for part in self._parts:
            if parts and size + len(part) > MAX_BYTES:
                break
            parts.append(part)
            size += len(part)
        is_last = self._is_ended and len(parts) == len(self._parts)
        if is_last and not parts and self._status is not None:
            return Answer(None, self._status)
        return Answer(_Chunk(parts, is_last and self._status is None).encoded(), None)


class Outgoing:
    """The streams that other gateways read here."""

    def __init__(self, status_of: StatusOf) -> None:
        self._status_of = status_of
        self._streams: dict[str, _Stream] = {}

    async def open(self, source: AsyncGenerator[bytes, None]) -> Answer:
        """Begins a stream, in the context of who opens it. Answers with its id and first parts, or how it failed."""
        stream, stream_id = _Stream(source, self._status_of), secrets.token_hex(_ID_BYTES)
        self._streams[stream_id] = stream
        asyncio.get_running_loop().call_later(UNREAD_SECONDS, self._look_after, stream_id)
        first = await stream.read(0, wait=True)
        return first if first.response is None else Answer(stream_id.encode() + first.response, None)

    async def read(self, request: bytes) -> Answer:
        """Answers a call of Incoming; without response and status where there is no such stream any more."""
        asked = json.loads(request)
        stream = self._streams.get(asked["stream"])
        return Answer(None, None) if stream is None else await stream.read(asked["after"], wait=asked["wait"])

    async def close(self, request: bytes) -> Answer:
        """Ends a stream."""
        if (stream := self._streams.pop(request.decode(), None)) is not None:
            stream.task.cancel()
        return Answer(b"", None)

    def _look_after(self, stream_id: str) -> None:
        if (stream := self._streams.get(stream_id)) is None:
            return
        if (left := stream.read_at + UNREAD_SECONDS - time.monotonic()) > 0:
            asyncio.get_running_loop().call_later(left, self._look_after, stream_id)
            return
        del self._streams[stream_id]
        stream.task.cancel()


async def incoming(calls: Calls, opened: Answer) -> AsyncGenerator[bytes, None]:
    """The parts of a stream that another gateway opened. Closing the generator ends it there.

    Raises:
        StreamEnded: it ended there with a status.
        ShuttingDown: that gateway is gone, or has let the stream go.
        StoreUnavailable: the database cannot be used now.
        KeyMissing, Damaged: what that gateway answers cannot be read.
    """
    fetched: asyncio.Queue[_Chunk | Exception] = asyncio.Queue(maxsize=1)
    task = asyncio.create_task(_fetch(calls, opened, fetched))
    is_over = False
    try:
        while not is_over:
            chunk = await fetched.get()
            is_over = isinstance(chunk, Exception) or chunk.is_last
            if isinstance(chunk, Exception):
                raise chunk
            for part in chunk.parts:
                yield part
    finally:
        task.cancel()
        if not is_over:
            calls.tell(Call(CLOSE, (opened.response or b"")[: 2 * _ID_BYTES], ""), opened.gateway)


class StreamEnded(Exception):
    """A stream ended with a status, a google.rpc.Status, at the gateway that has it."""

    def __init__(self, status: bytes) -> None:
        super().__init__("it ended with a status")
        self.status = status


async def _fetch(calls: Calls, opened: Answer, fetched: "asyncio.Queue[_Chunk | Exception]") -> None:
    data, count = opened.response or b"", 0
    stream_id, chunk = data[: 2 * _ID_BYTES].decode(), _Chunk.decoded(data[2 * _ID_BYTES :])

    async def read(*, wait: bool) -> Answer:
        request = json.dumps({"stream": stream_id, "after": count, "wait": wait}).encode()
        return (await calls.ask(Call(READ, request, ""), lambda answer: True, to=opened.gateway))[0]

    try:
        while True:
            while True:
                try:
                    async with asyncio.timeout(ALIVE_SECONDS):
                        await fetched.put(chunk)
                    break
                except TimeoutError:
                    await read(wait=False)
            count += len(chunk.parts)
            if chunk.is_last:
                return
            answer = await read(wait=True)
            if answer.error is not None:
                raise answer.error
            if answer.status is not None:
                raise StreamEnded(answer.status)
            if answer.response is None:
                raise ShuttingDown("the gateway that was asked has let this call go: try again")
            chunk = _Chunk.decoded(answer.response)
    except (StreamEnded, GatewayError) as error:
        await fetched.put(error)
