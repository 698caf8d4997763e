"""The body of a response, decompressed in bounded steps. Identity is requested, but some proxies compress anyway."""

import zlib
from collections.abc import AsyncIterator

import httpx2

_STEP_BYTES = 64 * 1024
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class UnknownEncoding(ValueError):
    """A body is compressed in an unsupported way, or cannot be decompressed."""


async def unpacked(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The body, in pieces of at most 64 KiB if it is compressed, up to the first end of the compressed stream.

    Raises:
        UnknownEncoding: it is compressed otherwise than by gzip or deflate, or not as its header says.
    """
    name = response.headers.get("content-encoding", "").strip().lower()
    if name in ("", "identity", "none", "utf-8"):
        async for data in response.aiter_raw():
            yield data
        return
    if name not in _WINDOW_BITS:
        raise UnknownEncoding("its answer packed by a method that was not asked for (content-encoding)")
    unpacker = zlib.decompressobj(_WINDOW_BITS[name])
    async for data in response.aiter_raw():
        while data and not unpacker.eof:
            try:
                piece = unpacker.decompress(data, _STEP_BYTES)
            except zlib.error:
                raise UnknownEncoding("an answer that does not unpack (content-encoding)") from None
            data = unpacker.unconsumed_tail
            if piece:
                yield piece
        if unpacker.eof:
            return
