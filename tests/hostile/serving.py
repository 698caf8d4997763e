"""A scripted HTTP server: what the peers that mean harm, and the obedient model, have in common."""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Self

from tests.support.listening import listening


class Peer:
    """Serves a port of its own as a context manager. Subclasses say what is answered."""

    keeps_alive = False
    """Whether a connection serves further requests; else its writing side is closed behind the first answer."""

    def __init__(self) -> None:
        self.url = ""
        self._listening = AsyncExitStack()

    def answer(self, head: str, body: bytes) -> Iterable[bytes]:
        """The pieces of the answer, with its head, byte for byte."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        port = await self._listening.enter_async_context(listening(self._serve, limit=2**26))
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listening.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._answer_one(reader, writer)
        while self.keeps_alive:
            await self._answer_one(reader, writer)
        writer.write_eof()
        await reader.read()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lengths = [int(line[15:]) for line in head.lower().splitlines() if line.startswith("content-length:")]
        body = await reader.readexactly(lengths[0]) if lengths else b""
        for piece in self.answer(head, body):
            writer.write(piece)
            await writer.drain()
