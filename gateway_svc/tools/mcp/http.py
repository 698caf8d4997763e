"""An MCP server at an address: streamable HTTP, by the transport of the package `mcp` over a client of ours."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import httpx2
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import streamable_http_client

MAX_BODY_BYTES = 16 * 1024 * 1024
CONNECT_SECONDS = 10.0


class BodyTooLong(httpx2.ReadError):
    """A server sent more than MAX_BODY_BYTES in answer to one request."""

    def __init__(self) -> None:
        super().__init__(f"a body of more than {MAX_BODY_BYTES} bytes")


class _Capped(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        length = 0
        async for chunk in self._stream:
            length += len(chunk)
            if length > MAX_BODY_BYTES:
                raise BodyTooLong
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


class _CappedTransport(httpx2.AsyncHTTPTransport):
    """Bounds bodies that are read whole; streams of events are bounded event by event, by the package itself."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.stream = _Capped(cast(httpx2.AsyncByteStream, response.stream))
        return response


@asynccontextmanager
async def reach_server(url: str, headers: Mapping[str, str], timeout_seconds: float) -> AsyncIterator[TransportStreams]:
    """Speaks to the server at url, without a proxy and without following it to another origin."""
    client = httpx2.AsyncClient(
        headers={"user-agent": "onrecord", "accept-encoding": "identity", **headers},
        # a stream of events may be silent for longer than a call may take
        timeout=httpx2.Timeout(max(300.0, timeout_seconds), connect=CONNECT_SECONDS),
        transport=_CappedTransport(),
        trust_env=False,
    )
    async with client, streamable_http_client(url, http_client=client, max_sse_event_size=MAX_BODY_BYTES) as streams:
        yield streams
