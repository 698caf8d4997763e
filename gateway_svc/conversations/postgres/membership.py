"""The place of this gateway among those that share the database: its number, a lock on it, and its beats."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

import psycopg
import structlog

from gateway_svc.conversations.encryption import Keys
from gateway_svc.conversations.postgres.database import CALLER, Connection, Database, Patience
from gateway_svc.conversations.postgres.migrate import LOCK
from gateway_svc.conversations.postgres.noted_keys import use_key
from gateway_svc.errors import SettingsError

BEAT_SECONDS = 3.0
GONE_SECONDS = 15.0
"""A gateway that has not told for so long that it lives, by the server's clock, may be succeeded: it hangs."""
_AGAIN_SECONDS = 0.2
_ANSWER_SECONDS = 5.0
"""How long a server may say nothing until it counts as away."""

_HELD = f"""SELECT objid::bigint AS number, pid FROM pg_locks
    WHERE locktype = 'advisory' AND classid::bigint = {LOCK[0]} AND objsubid = 2 AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""

ALIVE = f"""alive AS MATERIALIZED (
    SELECT gateways.number FROM gateways JOIN ({_HELD}) AS held ON held.number = gateways.number
    WHERE beat_at > clock_timestamp() - interval '{GONE_SECONDS} s'
)"""
"""A part of a statement: the numbers of the gateways that live."""

OnNote = Callable[[str, str], Awaitable[None]]
"""Is called with the channel and the payload of a notification, and must not raise."""

log = structlog.get_logger(__name__)


class OnBeat(Protocol):
    """What is done with each beat."""

    async def __call__(self, *, joined: bool) -> None:
        """Does it."""
        ...


class Membership:
    """It belongs to the loop that it is started in."""

    def __init__(
        self, database: Database, keys: Keys, on_beat: "OnBeat", on_note: OnNote, channels: Sequence[str]
    ) -> None:
        """on_beat is called with each beat, `joined` after a connection was made, and must not raise.

        keys: those that this gateway encrypts by, as the others are shown.
        """
        self._database = database
        self._keys = keys
        self._on_beat = on_beat
        self._on_note = on_note
        self.channels = channels
        self._number = 0
        self._task: asyncio.Task[None] | None = None
        self._joined = asyncio.Event()
        self._why = "it is being connected to"

    def start(self) -> None:
        """Begins to be one of them."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="sessions' database")

    async def number(self, patience: Patience = CALLER) -> int:
        """The number of this gateway, once it holds it.

        Raises:
            StoreUnavailable: the database is away for too long, or cannot be used.
        """

        async def joined() -> int:
            self.start()
            if not self._joined.is_set():
                try:
                    async with asyncio.timeout(1.0):
                        await self._joined.wait()
                except TimeoutError:
                    raise OSError(self._why) from None
            return self._number

        return await self._database.patiently(joined, patience.away_seconds)

    @property
    def known(self) -> int:
        """The number of this gateway, if it was ever told one; else 0."""
        return self._number

    def trouble(self) -> str:
        """Why this gateway is none of them now; empty if it is."""
        return "" if self._joined.is_set() or self._task is None else f"the sessions' database: {self._why}"

    async def _run(self) -> None:
        while True:
            try:
                await self._database.fit()
                async with await Connection.connect(self._database.conninfo, autocommit=True) as link:
                    async with asyncio.timeout(_ANSWER_SECONDS):
                        await self._join(link)
                        for channel in self.channels:
                            await link.execute(f"LISTEN {channel}")
                    self._joined.set()
                    await self._on_beat(joined=True)
                    while True:
                        async for note in link.notifies(timeout=BEAT_SECONDS):
                            await self._on_note(note.channel, note.payload)
                        async with asyncio.timeout(_ANSWER_SECONDS):
                            await self._beat(link)
                        await self._on_beat(joined=False)
            except (psycopg.Error, SettingsError, OSError) as error:
                self._why = self._database.why(error) or "it does not answer"
                if self._joined.is_set():
                    log.warning("sessions.database_away", reason=self._why)
                self._joined.clear()
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _join(self, link: Connection) -> None:
        """Takes the lock of this gateway's number: a new one, or the one that it had on a connection that broke."""
        if self._number:
            # What serves the connection that broke may not have noticed it, and has the lock.
            await link.execute(
                f"SELECT pg_terminate_backend(pid) FROM ({_HELD}) AS held WHERE number = %s", (self._number,)
            )
        else:
            cursor = await link.execute("INSERT INTO gateways (beat_at) VALUES (clock_timestamp()) RETURNING number")
            row = await cursor.fetchone()
            self._number = int(row[0]) if row else 0
        await link.execute("SELECT pg_advisory_lock(%s, %s)", (LOCK[0], self._number))
        await use_key(link, self._keys)
        await self._beat(link)
        log.info("sessions.database_joined", gateway=self._number)

    async def _beat(self, link: Connection) -> None:
        await link.execute(
            "INSERT INTO gateways (number, beat_at) OVERRIDING SYSTEM VALUE VALUES (%s, clock_timestamp()) "
            "ON CONFLICT (number) DO UPDATE SET beat_at = excluded.beat_at",
            (self._number,),
        )

    async def aclose(self) -> None:
        """Leaves: what this gateway holds, others may take."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._joined.clear()
