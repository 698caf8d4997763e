"""Tool calls that wait for a decision."""

import asyncio
import time
from dataclasses import dataclass

from gateway_svc.errors import NotFound


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision on a tool call."""

    allow: bool
    reason: str = ""


class Answers:
    """Delivers an answer to the call that waits for it."""

    def __init__(self, seconds: float) -> None:
        """Waits at most `seconds` for each answer."""
        self._seconds = seconds
        self._waiting: dict[str, asyncio.Future[Answer]] = {}

    def expires_at_ms(self) -> int:
        """When a call that begins to wait now is refused: milliseconds since 1970-01-01 UTC, for the client to show."""
        return time.time_ns() // 1_000_000 + round(self._seconds * 1000)

    async def wait_for(self, call_id: str) -> Answer:
        """The answer to a call; a refusal if none comes in time."""
        self._waiting[call_id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._seconds):
                return await self._waiting[call_id]
        except TimeoutError:
            return Answer(allow=False, reason=f"nobody answered within {self._seconds:g} seconds")
        finally:
            del self._waiting[call_id]

    def give(self, call_id: str, answer: Answer) -> None:
        """Answers a call.

        Raises:
            NotFound: no call with this id is waiting.
        """
        waiting = self._waiting.get(call_id)
        if waiting is None or waiting.done():
            raise NotFound(f"no tool call with the id {call_id!r} waits for an answer")
        waiting.set_result(answer)
