"""A model that writes 200 MB as fast as it is read."""

import asyncio
import json
from collections.abc import Iterator

from tests.hostile.serving import Peer

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n"


class EagerModel(Peer):
    """Speaks Ollama's wire form."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0

    def answer(self, head: str, body: bytes) -> Iterator[bytes]:
        """Text without end."""
        yield HEAD
        line = json.dumps({"model": "m", "message": {"role": "assistant", "content": "x" * 50_000}, "done": False})
        for _ in range(4000):
            yield f"{line}\n".encode()
            self.sent += len(line)

    async def stands_still(self) -> int:
        """Waits until nobody reads any more; how much was sent by then."""
        sent = -1
        while sent < self.sent or not sent:
            sent = self.sent
            await asyncio.sleep(2)
        return sent
