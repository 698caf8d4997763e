"""One connection to a model server: writes a request, and hands out the response as it comes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import httpx2

from gateway_svc.engines.http1.reading import ResponseReader
from service_kit.bounds import Exceeded

_READ_BYTES = 16 * 1024
"""How much is read before others have their turn: it may hold thousands of heads or chunks."""
_HEAD_BYTES, _PIECES = 4096, 256
"""The same ahead of a response, where small heads may follow one another; and how many pieces it may hold, if they are
as small as those before."""
_READ_AHEAD_BYTES = 64 * 1024
"""When more of a body waits for its reader, the server waits too."""


class Connection(asyncio.BufferedProtocol):
    """One request at a time (the BufferedProtocol of asyncio's streams)."""

    def __init__(self) -> None:
        self.is_open = True
        self.idle_since = 0.0
        """In the time of the loop."""
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._response: ResponseReader | None = None
        self._read = memoryview(bytearray(_READ_BYTES))
        self._read_bytes = _HEAD_BYTES
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_silent = True
        """Whether nothing has come since the request was written."""
        self._is_writing = False
        """Whether what was written waits for the server to read it."""
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def was_not_answered(self) -> bool:
        """Whether it was closed, after its request, without a byte of a response."""
        return self._is_silent and not self.is_open

    @property
    def may_serve_again(self) -> bool:
        """Whether request and response are whole and taken, and the server takes another request."""
        is_done = self._response is None or (self._response.ended and self._response.may_stay_open)
        return self.is_open and is_done and not self._pieces and not self._transport.get_write_buffer_size()

    async def ask(self, method: bytes, request: bytes, write_s: float | None, read_s: float | None) -> ResponseReader:
        """Writes the bytes of a request; returns the response once its head is there.

        Raises:
            WriteTimeout, ReadTimeout, ReadError, RemoteProtocolError: there is no response.
        """
        response = self._response = ResponseReader(method)
        self._read_bytes = _HEAD_BYTES
        self._is_silent, self._error = True, None
        self._transport.write(request)
        while self._is_writing and not response.status and self._error is None:  # some servers answer before the end
            await self._wait(write_s, httpx2.WriteTimeout)
        while not response.status:
            if self._error:
                raise self._error
            await self._wait(read_s, httpx2.ReadTimeout)
        return response

    async def body(self, response: ResponseReader, read_s: float | None) -> AsyncIterator[bytes]:
        """The pieces of the body, each as much as has come.

        Raises:
            ReadTimeout, ReadError, RemoteProtocolError: it does not come to its end.
            Exceeded: it goes beyond a bound.
        """
        while True:
            if self._pieces:
                data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
                self._pieces, self._size = [], 0
                self._transport.resume_reading()
                yield data
            elif response.ended:
                return
            elif self._error:
                raise self._error
            else:
                await self._wait(read_s, httpx2.ReadTimeout)

    def close(self) -> None:
        """Closes it at once: nothing waits for the server."""
        self.is_open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._read[: self._read_bytes]

    def buffer_updated(self, nbytes: int) -> None:
        self._is_silent = False
        if self._response is None:
            self.close()  # nobody asked
            return
        try:
            self._pieces += (pieces := self._response.feed(bytes(self._read[:nbytes])))
        except (httpx2.RemoteProtocolError, Exceeded) as error:
            self._fail(error)
            return
        if self._response.error:  # behind pieces that are whole, which body() hands out first
            self._fail(self._response.error)
            return
        if self._response.status:
            self._read_bytes = min(_READ_BYTES, max(_PIECES, nbytes * _PIECES // max(1, len(pieces))))
        self._size += sum(map(len, pieces))
        if self._size > _READ_AHEAD_BYTES:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._response is None or self._error:
            return
        if exc:
            self._error = httpx2.ReadError(str(exc))
            self._error.__cause__ = exc
        else:
            try:
                self._response.end()
            except httpx2.RemoteProtocolError as error:
                self._error = error
        self._wake()

    def pause_writing(self) -> None:
        self._is_writing = True

    def resume_writing(self) -> None:
        self._is_writing = False
        self._wake()

    def _fail(self, error: Exception) -> None:
        self._error = error
        self.close()
        self._wake()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self, seconds: float | None, error: Callable[[str], Exception]) -> None:
        """Waits until something happens. Raises error if nothing does for so long."""
        waiter = self._waiter = self._loop.create_future()

        def give_up() -> None:
            if not waiter.done():
                waiter.set_exception(error(""))

        timer = self._loop.call_later(seconds, give_up) if seconds is not None else None
        try:
            await waiter
        finally:
            if timer:
                timer.cancel()
