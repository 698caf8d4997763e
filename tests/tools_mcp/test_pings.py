"""A server that asks for much gets few answers at once, and all that it is promised."""

import asyncio
import json
from typing import Any

from gateway_svc.tools.mcp.client import ANSWERS, ANSWERS_AT_ONCE, Client


class Counting:
    """A link on which each message takes its time."""

    def __init__(self) -> None:
        self.at_once = self.most = 0
        self.sent: list[Any] = []
        self.all_sent = asyncio.Event()

    async def send(self, message: dict[str, Any]) -> None:
        if "method" in message:  # the probe
            return
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.sent.append(message["id"])
        if len(self.sent) == ANSWERS:
            self.all_sent.set()


async def test_pings_that_come_together_are_answered_a_few_at_a_time():
    client, link = Client("t", lambda _method: None), Counting()
    opening = asyncio.create_task(client.open(link, 600))
    await asyncio.sleep(0)
    pings = [{"jsonrpc": "2.0", "id": number, "method": "ping"} for number in range(2 * ANSWERS)]
    await client.take(json.dumps(pings).encode())
    await link.all_sent.wait()
    opening.cancel()
    assert link.sent == list(range(ANSWERS))
    assert link.most == ANSWERS_AT_ONCE
