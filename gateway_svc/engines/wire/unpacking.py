"""The body of a response, unpacked in bounded steps. Identity is asked for, but some proxies pack all the same."""

import zlib
from collections.abc import AsyncIterator

import httpx2

_STEP_BYTES = 64 * 1024
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class UnknownEncoding(ValueError):
    """A body is packed in a way that was not asked for, or does not unpack."""


async def unpacked(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The body in pieces of at most 64 KiB each where it is packed, up to the first end of what was packed.

    Raises:
        UnknownEncoding: it is packed otherwise than by gzip or deflate, or not as it says.
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
