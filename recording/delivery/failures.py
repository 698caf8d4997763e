"""The failures of a sender: what is told of them, and how long it then waits."""

import asyncio
import random
from typing import Literal

from recording.delivery.connection import (
    describe,
    is_planned_end,
    is_unavailable,
    refusal_hint,
    retry_after_seconds,
    was_cut,
)
from recording.log import get_logger

log = get_logger(__name__)

_FIRST_BACKOFF_SECONDS = 0.1
_MAX_BACKOFF_SECONDS = 30.0
_ANNOUNCED_SECONDS = 60.0
"""How long the service may be away after it said that it ends, before that is a warning."""


class Failures:
    """Those since the last ack."""

    def __init__(self, address: str) -> None:
        """address: the service's."""
        self.count = 0
        self.refusal = ""
        """What the service refuses until an operator does something; empty if it is not that."""
        self._address = address
        self._last = ("", "")
        self._announced_at = float("-inf")

    def note(self, failure: Exception | None, kept_bytes: int) -> float:
        """Tells of a failure, unless it is the last one again; returns how many seconds to wait.

        failure: None if the service ended the stream. kept_bytes: how much waits meanwhile.
        """
        reason = "the service ended the stream" if failure is None else describe(failure)
        hint = None if failure is None else refusal_hint(failure)
        told = (self._severity(failure, hint), reason)
        getattr(log, "debug" if told == self._last else told[0])(
            "audit.sending_failed", target=self._address, reason=reason, hint=hint, kept_bytes=kept_bytes
        )
        self._last, self.refusal = told, hint or ""
        seconds = retry_after_seconds(failure) + backoff_seconds(self.count)
        self.count += 1
        return seconds

    def end(self) -> None:
        """An ack has come."""
        if self.count:
            log.info("audit.sending_again", failures=self.count)
            self.count, self._last, self.refusal = 0, ("", ""), ""

    def _severity(self, failure: Exception | None, hint: str | None) -> Literal["info", "warning", "error"]:
        """An end that the service announced, and its absence for a while after that, are no cause for alarm.

        Nor is one cut of a working connection: if the service is gone, the next attempt tells.
        """
        now = asyncio.get_running_loop().time()
        if failure is None or is_planned_end(failure):
            self._announced_at = now
        elif hint:
            return "error"
        elif was_cut(failure) and not self.count:
            return "info"
        elif not is_unavailable(failure) or now - self._announced_at > _ANNOUNCED_SECONDS:
            return "warning"
        return "info"


def backoff_seconds(failures: int) -> float:
    """How long to wait after so many failures before the last: longer each time, and at random."""
    ceiling = min(_MAX_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** min(failures, 30))
    return random.uniform(0, ceiling)  # noqa: S311 - only spreads retries
