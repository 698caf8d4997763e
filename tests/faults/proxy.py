"""A TCP proxy that fails on demand: it runs in a thread of its own, and its behaviour is switched while it runs."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Self

from tests.support.listening import listening

Behaviour = Literal["pass", "delay", "drop_acks", "black_hole", "refuse"]

_DELAY_SECONDS = 0.03


class Proxy:
    """Stands between a producer and the audit service at `upstream` (host:port). A context manager."""

    def __init__(self, upstream: str) -> None:
        self.behaviour: Behaviour = "pass"
        """What happens to bytes from now on, on connections that exist too."""
        self.carries: Callable[[], int] | None = None
        """How many bytes the next connection carries, both ways together, before it is reset; any number if None."""
        self.address = ""
        self.swallowed_bytes = 0
        self._host, _, port = upstream.rpartition(":")
        self._port = int(port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()), name="proxy")

    def lead_to(self, upstream: str) -> None:
        """Where new connections lead from now on."""
        self._host, _, port = upstream.rpartition(":")
        self._port = int(port)

    def cut(self) -> None:
        """Resets every connection."""
        self._loop.call_soon_threadsafe(self._abort)

    def _upstream(self) -> tuple[str, int]:
        """Where the next connection leads."""
        return self._host, self._port

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()
        self._loop.close()

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self) -> None:
        async with listening(self._connected) as port:
            self.address = f"127.0.0.1:{port}"
            self._listening.set()
            await self._ending.wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        self._writers.add(writer)
        try:
            if self.behaviour == "refuse":
                return
            up_reader, up_writer = await asyncio.open_connection(*self._upstream())
            writers.append(up_writer)
            self._writers.add(up_writer)
            left = [self.carries()] if self.carries else None
            pumps = [
                asyncio.create_task(self._pump(reader, up_writer, left, acks=False)),
                asyncio.create_task(self._pump(up_reader, writer, left, acks=True)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.wait(pumps)
        finally:  # either side has gone, or the proxy ends: the connection ends with it
            for each in writers:
                each.transport.abort()
                self._writers.discard(each)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int] | None, *, acks: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(2**16):
                if self.behaviour == "delay":
                    await asyncio.sleep(_DELAY_SECONDS)
                if self.behaviour == "black_hole" or (acks and self.behaviour == "drop_acks"):
                    self.swallowed_bytes += len(data)
                    continue
                if left is not None:
                    data, left[0] = data[: max(0, left[0])], left[0] - len(data)
                writer.write(data)
                await writer.drain()
                if left is not None and left[0] <= 0:
                    return
