"""Clients that make a call and never read its answer: they give its stream no window, and answer pings."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
ACK, END_STREAM, END_HEADERS = 1, 1, 4
NO_WINDOW = struct.pack(">HI", 4, 0)
POST = b"\x83\x86"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame of HTTP/2 (RFC 9113); length is what it says of itself."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def call(path: str, request: bytes, stream: int = 1, *, ends: bool = True) -> bytes:
    """The frames of a gRPC call with one message."""
    headers = POST + b"".join(
        (
            b"\x04" + _string(path.encode()),
            b"\x01" + _string(b"localhost"),
            b"\x00" + _string(b"content-type") + _string(b"application/grpc"),
            b"\x00" + _string(b"te") + _string(b"trailers"),
        )
    )
    message = b"\0" + struct.pack(">I", len(request)) + request
    data = frame(DATA, END_STREAM if ends else 0, stream, message)
    return frame(HEADERS, END_HEADERS, stream, headers) + data


def _string(text: bytes) -> bytes:
    assert len(text) < 127
    return bytes([len(text)]) + text


@asynccontextmanager
async def unread(address: str, path: str, request: bytes, peers: int, *, ends: bool = True) -> AsyncIterator[None]:
    """So many clients, each on a connection of its own, while the body runs."""
    host, _, port = address.rpartition(":")
    payload = PREFACE + frame(SETTINGS, 0, 0, NO_WINDOW) + call(path, request, ends=ends)

    async def one() -> None:
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
        finally:
            begun.release()
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                writer.write(payload)
                while True:
                    head = await reader.readexactly(9)
                    told = await reader.readexactly(int.from_bytes(head[:3]))
                    if head[3] in (PING, SETTINGS) and not head[4] & ACK:
                        writer.write(frame(head[3], ACK, 0, told if head[3] == PING else b""))
                        await writer.drain()
        finally:
            writer.transport.abort()

    begun = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(one()) for _ in range(peers)]
    try:
        for _ in tasks:
            await begun.acquire()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
