"""How much is read at once goes by what it holds, so that others have their turn soon."""

import asyncio
from unittest import mock

from gateway_svc.engines.http1.connection import _HEAD_BYTES, _PIECES, _READ_BYTES, Connection

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
HINT = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
LARGE = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"


async def test_small_heads_and_small_chunks_are_read_a_few_at_a_time():
    connection, sizes = Connection(), list[int]()
    connection.connection_made(mock.Mock())

    def come(data: bytes) -> list[int]:
        sizes.clear()
        while data:
            room = connection.get_buffer(-1)
            size = min(len(room), len(data))
            room[:size] = data[:size]
            connection.buffer_updated(size)
            sizes.append(size)
            data = data[size:]
        return sizes

    asking = asyncio.create_task(connection.ask(b"POST", b"request", None, None))
    await asyncio.sleep(0)
    assert max(come(HINT * 500)) == _HEAD_BYTES
    come(HEAD)
    await asking
    assert come(LARGE * 4)[-2] == _READ_BYTES
    assert max(come(b"1\r\n:\r\n" * 10_000)[1:]) <= 8 * _PIECES
    assert max(come(LARGE * 4)) == _READ_BYTES
