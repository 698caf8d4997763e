"""Pages that mean harm, byte for byte as they are sent."""

import asyncio
import gzip
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from tests.tools.pages import Pages

HTML = "content-type: text/html\r\n"
PLAIN = "content-type: text/plain\r\n"
LONG = "a" * 8_000

Pieces = Callable[[], Iterator[bytes]]


def whole(body: bytes, headers: str = HTML) -> Pieces:
    return lambda: iter([f"HTTP/1.1 200 OK\r\n{headers}content-length: {len(body)}\r\n\r\n".encode(), body])


def packed(body: bytes, junk: int = 0) -> Pieces:
    return whole(gzip.compress(body) + bytes(junk), f"{HTML}content-encoding: gzip\r\n")


def chunked(piece: bytes, times: int, trailer: bytes = b"", trailers: int = 0) -> Iterator[bytes]:
    yield f"HTTP/1.1 200 OK\r\n{PLAIN}transfer-encoding: chunked\r\n\r\n".encode()
    for _ in range(times):
        yield piece
    yield b"0\r\n"
    for _ in range(trailers):
        yield trailer
    yield b"\r\n"


def informational() -> Iterator[bytes]:
    for _ in range(100_000):
        yield b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 100


def head() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    for _ in range(100):
        yield b"x-a: b\r\n" * 1000


def endless() -> Iterator[bytes]:
    yield f"HTTP/1.1 200 OK\r\n{PLAIN}connection: close\r\n\r\n".encode()
    for _ in range(2_000):
        yield b"x" * 65_536


def bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(300)) + packer.flush()


TABLE = b"<table>" + b"<tr><td>x</td></tr>" * 8_000 + b"<tr>" + b"<td>y</td>" * 8_000 + b"</tr></table>"
ATTACKS: dict[str, Pieces] = {
    "/junk-behind-gzip": packed(b"x", 60_000_000),
    "/links": packed(b"<a href=b>c</a>" * 330_000),
    f"/{LONG}": packed(b"<a href=b>c</a>" * 60_000),
    "/paragraphs": packed(b"<p>" * 1_600_000),
    "/rows": packed(TABLE),
    "/gzip-bomb": whole(bomb(), f"{HTML}content-encoding: gzip\r\n"),
    "/brotli": whole(b"x" * 100, f"{HTML}content-encoding: br\r\n"),
    "/chunks": partial(chunked, b"1\r\nx\r\n" * 1000, 300),
    "/chunk-extensions": partial(chunked, b"1;" + b"a" * 1000 + b"\r\nx\r\n", 10_000),
    "/trailers": partial(chunked, b"5\r\nhello\r\n", 1, b"x-a: b\r\n" * 100, 1000),
    "/informational": informational,
    "/head": head,
    "/endless": endless,
    "/redirect": lambda: iter([f"HTTP/1.1 302 X\r\nlocation: /{LONG}\r\ncontent-length: 0\r\n\r\n".encode()]),
    "/round": lambda: iter([b"HTTP/1.1 302 X\r\nlocation: /round\r\ncontent-length: 0\r\n\r\n"]),
}


def add_to(pages: Pages) -> None:
    """Serves them."""

    async def answer(pieces: Pieces, writer: asyncio.StreamWriter) -> None:
        for piece in pieces():
            writer.write(piece)
            await writer.drain()

    for path, pieces in ATTACKS.items():
        pages.add_raw(path, partial(answer, pieces))
