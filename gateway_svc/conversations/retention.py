"""Removes sessions that nobody has used for long, and says which.

A clock alone removes nothing: when it shows a time that is far from that of the last look, be it that the clock jumped
or that no gateway ran, nothing is removed for a day, and a line says so.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import structlog

from gateway_svc.conversations.protocol import Conversations
from gateway_svc.errors import Busy, NotFound
from recording.replacing import replace_file
from recording.upkeep import attempt

DAY_MS = 86_400_000
MAX_JUMP_MS = 7 * DAY_MS
LOOK_SECONDS = 3600.0

log = structlog.get_logger(__name__)


class Retention:
    """Looks at the sessions of one home."""

    def __init__(
        self, conversations: Conversations, remove: Callable[[str], Awaitable[object]], days: int, notes: Path
    ) -> None:
        """`remove` removes a session by its id. `notes` is a file that remembers when it looked last."""
        self._conversations = conversations
        self._remove = remove
        self._days = days
        self._notes = notes

    async def run(self) -> None:
        """Looks once an hour, until it is cancelled."""
        while True:
            with attempt("retention of sessions"):
                await self.look(time.time_ns() // 1_000_000)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self, now_ms: int) -> int:
        """Removes what is too old, and returns how many; a session that is in use stays.

        Raises:
            OSError: the notes cannot be written, so nothing is removed.
        """
        if not await self._trusts_clock(now_ms):
            return 0
        removed, before_ms = 0, now_ms - self._days * DAY_MS
        async for session_id in self._conversations.unused_since(before_ms):
            with suppress(Busy, NotFound):
                await self._remove(session_id)
                removed += 1
                log.info("session.removed", session_id=session_id, reason="retention", unused_days=self._days)
        if removed:
            log.info("retention.finished", sessions_removed=removed)
        return removed

    async def _trusts_clock(self, now_ms: int) -> bool:
        last_ms, trusted_ms = await self._noted()
        if not last_ms - MAX_JUMP_MS <= now_ms <= last_ms + MAX_JUMP_MS:
            trusted_ms = now_ms + DAY_MS
            log.warning(
                "retention.waits",
                last_look_ms=last_ms,
                now_ms=now_ms,
                hint="the clock is far from that of the last look: nothing is removed for a day",
            )
        self._notes.parent.mkdir(mode=0o700, exist_ok=True)
        replace_file(self._notes, json.dumps({"last_ms": now_ms, "trusted_ms": trusted_ms}).encode())
        return now_ms >= trusted_ms

    async def _noted(self) -> tuple[int, int]:
        """When it looked last, and from when on it may remove; at first by the newest session."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            noted = json.loads(self._notes.read_bytes())
            return int(noted["last_ms"]), int(noted["trusted_ms"])
        newest = (await self._conversations.list_page(1, None, None)).states
        return (newest[0].updated_at_ms if newest else 0), 0
