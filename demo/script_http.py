"""The HTTP side of the model server: h11 on asyncio, with control over every byte of an answer."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import h11


@dataclass(slots=True)
class Received:
    """A request as received."""

    method: str
    path: str
    """With its query."""
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes
    client: str
    """The client's address and port, the same for all requests of a connection."""
    gone: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """Set when the client disconnects before the answer is complete."""

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class HttpConnection(asyncio.Protocol):
    """A client's connection, which carries one request after another."""

    def __init__(
        self, answer: Callable[[Received, "Reply"], Awaitable[None]], connections: set["HttpConnection"]
    ) -> None:
        """`connections` contains this one while it is open."""
        self._answer = answer
        self._connections = connections
        self._http = h11.Connection(h11.SERVER)
        self._head: h11.Request | None = None
        self._body: list[bytes] = []
        self._request: Received | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio. Ends a running answer."""
        self._connections.discard(self)
        if self._task is not None and self._request is not None:
            self._request.gone.set()
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        try:
            self._http.receive_data(data)
            self._read()
        except h11.RemoteProtocolError:
            self.abort()

    def _read(self) -> None:
        while self._task is None:
            event = self._http.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return
            if isinstance(event, h11.Request):
                self._head, self._body = event, []
            elif isinstance(event, h11.Data):
                self._body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage) and self._head is not None:
                headers = {name.decode(): value.decode("latin-1") for name, value in self._head.headers}
                target = self._head.target.decode("latin-1")
                client = "{}:{}".format(*self._transport.get_extra_info("peername"))
                self._request = Received(self._head.method.decode(), target, headers, b"".join(self._body), client)
                self._task = asyncio.get_running_loop().create_task(self._run(self._request))

    async def _run(self, request: Received) -> None:
        await self._answer(request, Reply(self))
        self._task = None
        if self._transport.is_closing():
            return
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._read()
        else:
            self._transport.close()

    def write(self, *events: h11.Event) -> None:
        """Sends events in one write."""
        self._transport.write(b"".join(self._http.send(event) or b"" for event in events))

    def write_chunks(self, chunks: Iterable[bytes]) -> None:
        """Sends HTTP chunks in one write. Framed here, since h11 would take longer than everything else for a token."""
        self._transport.write(b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks))

    def abort(self) -> None:
        """Cuts the connection and drops unsent bytes."""
        self._transport.abort()

    def close(self) -> None:
        """Flushes, then cuts the connection although the answer is not complete."""
        self._transport.close()


class Reply:
    """Where the answer to one request goes."""

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection

    def whole(self, status: int, content_type: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """A complete answer."""
        extra = [*(headers or {}).items(), ("content-length", str(len(body)))]
        self._connection.write(_response(status, content_type, extra), h11.Data(data=body), h11.EndOfMessage())

    def begin(self, status: int, content_type: str) -> None:
        """The head of an answer in chunks."""
        self._connection.write(_response(status, content_type, [("transfer-encoding", "chunked")]))

    def send(self, chunks: Iterable[bytes]) -> None:
        """Chunks of the answer, each of them an HTTP chunk."""
        self._connection.write_chunks(chunks)

    def end(self) -> None:
        """The end of an answer in chunks."""
        self._connection.write(h11.EndOfMessage())

    def cut(self) -> None:
        """Ends the connection in the middle of the answer."""
        self._connection.close()


def _response(status: int, content_type: str, headers: list[tuple[str, str]]) -> h11.Response:
    return h11.Response(status_code=status, headers=[("content-type", content_type), *headers])
