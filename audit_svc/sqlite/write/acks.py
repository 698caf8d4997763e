"""Acks from the writer's thread to the event loop's: all batches of a commit by one call.

To wake the loop, the writer lets go of Python's lock and waits for it, up to 0.1 ms while the loop is busy. For each
batch it did so once, which took as long as 3 % of the commit.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from onrecord.audit.v1 import audit_pb2

Response = audit_pb2.RecordResponse


class Acks:
    """Has the event loop that waits for responses set them."""

    def __init__(self) -> None:
        """The loop is the one that is the first to expect a response."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def expect(self, record: Callable[[], Future[Response]]) -> asyncio.Future[Response]:
        """On the loop's thread: calls record, and returns what its future will be, whether anybody still waits then.

        Raises what record raises.
        """
        self._loop = self._loop or asyncio.get_running_loop()
        response: asyncio.Future[Response] = self._loop.create_future()
        # Looked at here, since the caller may have gone.
        response.add_done_callback(lambda done: done.cancelled() or done.exception())
        record().add_done_callback(partial(_pass_on, response))
        return response

    def call(self, ack: Callable[[], None]) -> None:
        """On the writer's thread: has the loop call ack, which sets what record returned."""
        if self._loop is None:  # nobody has expected anything yet
            ack()
            return
        with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            self._loop.call_soon_threadsafe(ack)


def _pass_on(response: asyncio.Future[Response], stored: Future[Response]) -> None:
    if response.done():
        return
    if error := stored.exception():
        response.set_exception(error)
    else:
        response.set_result(stored.result())
