"""A web server that answers as a test says, byte for byte."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from tests.support.listening import listening

Answer = bytes | Callable[[asyncio.StreamWriter], object]


class Pages:
    """Serves on a port of its own, and remembers what it was asked."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self.port = port
        self.requests: list[str] = []
        self.hosts: list[str] = []
        self.heads: list[str] = []
        self._answers: dict[str, Answer] = {}
        self._tls = tls
        self._listening = AsyncExitStack()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    def add(self, path: str, body: str | bytes = b"", *, status: str = "200 OK", headers: str = "") -> None:
        """What is answered to a request for path."""
        content = body.encode() if isinstance(body, str) else body
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n"
        if "content-type" not in headers.lower():
            head += "Content-Type: text/plain\r\n"
        self._answers[path] = f"{head}{headers}{chr(13) + chr(10) if headers else ''}\r\n".encode() + content

    def redirect(self, path: str, location: str, *, status: str = "302 Found", headers: str = "") -> None:
        """Sends path on to location."""
        more = f"\r\n{headers}" if headers else ""
        self.add(path, status=status, headers=f"Location: {location}{more}")

    def add_raw(self, path: str, answer: Answer) -> None:
        """Bytes, or what writes them."""
        self._answers[path] = answer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        path = head.split(" ", 2)[1]
        self.requests.append(path)
        self.heads.append(head)
        self.hosts += [line[6:] for line in head.split("\r\n") if line.lower().startswith("host: ")]
        answer = self._answers.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        if isinstance(answer, bytes):
            writer.write(answer)
        else:
            written = answer(writer)
            if asyncio.iscoroutine(written):
                await written
        await writer.drain()

    async def __aenter__(self) -> Self:
        served = listening(self._serve, self.host, self.port, tls=self._tls)
        self.port = await self._listening.enter_async_context(served)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._listening.aclose()
