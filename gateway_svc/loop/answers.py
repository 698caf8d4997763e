"""Tool calls that wait for a decision, and the decisions of the last hour."""

import asyncio
import time
from dataclasses import dataclass, replace

import structlog

from gateway_svc.errors import AlreadyExists, NotFound

REMEMBERED_SECONDS = 3600.0
MAX_REMEMBERED = 10_000
"""Answers that are remembered; of more the oldest are forgotten first."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision on a tool call."""

    allow: bool
    reason: str = ""
    """A person's words, for the model and, redacted, for the record; the log does not have them."""
    by: str = ""
    """The authenticated name of who answered; empty where callers have no names."""
    at_ms: int = 0
    """When the answer came, in milliseconds since 1970-01-01 UTC."""


@dataclass(frozen=True, slots=True)
class _Given:
    """An answer that was taken; `by` is who gave it, `until` by the monotonic clock how long it is remembered."""

    answer: Answer
    by: str
    until: float


class Answers:
    """Delivers an answer to the call that waits for it."""

    def __init__(self, seconds: float) -> None:
        """Waits at most `seconds` for each answer."""
        self.seconds = seconds
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self._given: dict[str, _Given] = {}
        """In the order in which they came."""

    def expires_at_ms(self) -> int:
        """When a call that begins to wait now is refused: milliseconds since 1970-01-01 UTC, for the client to show."""
        return time.time_ns() // 1_000_000 + round(self.seconds * 1000)

    async def wait_for(self, call_id: str) -> Answer | None:
        """The answer to a call; None if none comes in time, which counts as a refusal."""
        self._waiting[call_id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self.seconds):
                return await self._waiting[call_id]
        except TimeoutError:
            log.info("tool_call.not_answered", tool_call_id=call_id, seconds=self.seconds)
            return None
        finally:
            del self._waiting[call_id]

    def give(self, call_id: str, answer: Answer, by: str = "") -> None:
        """Answers a call; the same answer again by the same caller `by` changes nothing.

        Raises:
            AlreadyExists: the call was answered otherwise, or by somebody else.
            NotFound: no call with this id waits, and none was answered within the last hour.
        """
        self._forget_old()
        if given := self._given.get(call_id):
            if (given.answer, given.by) != (answer, by):
                raise AlreadyExists("the tool call was answered otherwise, or by another caller", "tool_call", call_id)
            return
        waiting = self._waiting.get(call_id)
        if waiting is None or waiting.done():
            raise NotFound(f"no tool call with the id {call_id!r} waits for an answer", "tool_call", call_id)
        waiting.set_result(replace(answer, at_ms=time.time_ns() // 1_000_000))
        log.info("tool_call.answered", tool_call_id=call_id, allowed=answer.allow, answered_by=by)
        self._given[call_id] = _Given(answer, by, time.monotonic() + REMEMBERED_SECONDS)

    def _forget_old(self) -> None:
        now = time.monotonic()
        while self._given:
            call_id, oldest = next(iter(self._given.items()))
            if oldest.until > now and len(self._given) < MAX_REMEMBERED:
                return
            del self._given[call_id]
