"""Requests are decoded where everybody has their turns."""

import asyncio

from service_kit.handlers import LARGE_BYTES, in_turn
from tests.support.others import others


async def test_large_requests_that_come_at_once_are_decoded_one_a_turn() -> None:
    async with others() as beside:

        def decode(request: bytes) -> int:
            beside.done += 1
            return len(request)

        sizes = [LARGE_BYTES + 1 + number for number in range(16)]
        decoded = await asyncio.gather(*(in_turn(decode, bytes(size)) for size in sizes))
    assert decoded == sizes
    assert beside.most == 1


async def test_smaller_ones_wait_for_nobody() -> None:
    async with others() as beside:
        await asyncio.sleep(0)
        before = beside.turns
        assert await in_turn(len, bytes(LARGE_BYTES)) == LARGE_BYTES
        assert beside.turns == before
