"""The requests that name themselves, of all gateways that share the database: each runs once, at one of them.

A gateway claims a request before anything of it runs, and tells its turn under the claim before the turn begins. A
claim whose gateway is gone before that is free again. After that the request has run, however its gateway ends.
"""

import asyncio
from contextlib import suppress
from typing import Any
from uuid import uuid4

import structlog

from gateway_svc.conversations.postgres.database import ONCE, Database
from gateway_svc.conversations.postgres.membership import ALIVE, Membership
from gateway_svc.errors import AlreadyExists, Busy, StoreUnavailable
from gateway_svc.turns.kept import KEEP_SECONDS
from gateway_svc.turns.requests import Request

_KEY = "caller = %(caller)s AND request_id = %(request_id)s"
_CLAIM = f"""WITH {ALIVE}
INSERT INTO gateway_requests AS known (caller, request_id, digest, claim, holder)
VALUES (%(caller)s, %(request_id)s, %(digest)s, %(claim)s, %(holder)s)
ON CONFLICT (caller, request_id)
DO UPDATE SET digest = excluded.digest, claim = excluded.claim, holder = excluded.holder, ended_at = NULL
WHERE known.turn_id = '' AND known.holder NOT IN (SELECT number FROM alive)"""
_FIND = f"""WITH {ALIVE}
SELECT claim::text, digest, session_id, turn_id, accepted_ms, finished, holder IN (SELECT number FROM alive), holder
FROM gateway_requests WHERE {_KEY}"""
_OF_GONE = f"""WITH {ALIVE}
SELECT caller, request_id, digest, session_id, turn_id, accepted_ms, finished
FROM gateway_requests WHERE turn_id = %(turn_id)s AND turn_id <> '' AND holder NOT IN (SELECT number FROM alive)"""
_TELL = f"""UPDATE gateway_requests SET session_id = %(session_id)s, turn_id = %(turn_id)s,
    accepted_ms = %(accepted_ms)s, finished = %(finished)s,
    ended_at = CASE WHEN %(finished)s::bytea IS NULL THEN NULL ELSE clock_timestamp() END
WHERE {_KEY} AND claim = %(claim)s"""
_RELEASE = f"DELETE FROM gateway_requests WHERE {_KEY} AND claim = %(claim)s"
_GONE = f"""WITH {ALIVE} UPDATE gateway_requests SET ended_at = clock_timestamp()
WHERE ended_at IS NULL AND holder NOT IN (SELECT number FROM alive)"""
_FORGET = f"DELETE FROM gateway_requests WHERE ended_at < clock_timestamp() - interval '{KEEP_SECONDS} s'"

_RELEASED_SECONDS = 1.0

log = structlog.get_logger(__name__)


class SharedRequests:
    """See gateway_svc.turns.named.Claims. It belongs to the loop that uses it first."""

    def __init__(self, database: Database, membership: Membership) -> None:
        self._database = database
        self._membership = membership
        self._claims: dict[tuple[str, str], str] = {}
        """Of the requests that run here, or begin to."""
        self._untold: dict[str, tuple[str, dict[str, Any]]] = {}
        """What the database is still to be told: statements, by their claims."""
        self._telling = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def claim(self, caller: str, request_id: str, digest: str) -> Request | None:
        key = {"caller": caller, "request_id": request_id}
        claim = self._claims[caller, request_id] = str(uuid4())
        await self.tell()  # a release of the same request may be untold
        mine = {**key, "claim": claim, "digest": digest, "holder": await self._membership.number()}
        rows = list[Any]()
        while not rows:  # one that is in the way may be released before it is looked at
            await self._database.ask(_CLAIM, mine)
            rows = await self._database.ask(_FIND, key)
        found, its_digest, session_id, turn_id, accepted_ms, finished, is_alive, holder = rows[0]
        if found == claim:
            return None
        del self._claims[caller, request_id]
        if its_digest != digest:
            raise AlreadyExists(
                "request_id stands for another request already: take a new one for each", "request", request_id
            )
        if finished is None and (is_alive or not turn_id):
            told = "the turn of this request runs at another gateway: send it again to hear how it has ended"
            raise Busy(told, holder)
        return Request(caller, request_id, digest, session_id, turn_id, accepted_ms, finished=finished)

    async def of_gone(self, turn_id: str) -> Request | None:
        rows = await self._database.ask(_OF_GONE, {"turn_id": turn_id}) if turn_id else []
        if not rows:
            return None
        caller, request_id, digest, session_id, its_turn_id, accepted_ms, finished = rows[0]
        return Request(caller, request_id, digest, session_id, its_turn_id, accepted_ms, finished=finished)

    async def begun(self, request: Request) -> None:
        rows = await self._database.ask(_TELL, {**_turn(request), "claim": self._claims[request.key]})
        if not rows[0][0]:
            raise Busy("another gateway has taken this request over, since this one did not answer: send it again")

    def ended(self, request: Request) -> None:
        self._tell_soon(request.key, _TELL, _turn(request))

    async def release(self, caller: str, request_id: str) -> None:
        self._tell_soon((caller, request_id), _RELEASE, {"caller": caller, "request_id": request_id})
        if self._task is not None:  # who was refused hears so soon, also while the database is away
            await asyncio.wait([self._task], timeout=_RELEASED_SECONDS)

    def _tell_soon(self, key: tuple[str, str], statement: str, values: dict[str, Any]) -> None:
        if (claim := self._claims.pop(key, None)) is None:
            return
        self._untold[claim] = statement, {**values, "claim": claim}
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self.tell())

    async def tell(self) -> None:
        """Tells the database what it was not told yet; what it cannot be told now is told with a later beat."""
        async with self._telling:
            with suppress(StoreUnavailable):
                while self._untold:
                    claim, (statement, values) = next(iter(self._untold.items()))
                    await self._database.ask(statement, values, ONCE)
                    del self._untold[claim]

    async def look(self) -> None:
        """With each beat: tells what is untold, and forgets what ended an hour ago, by the server's clock."""
        await self.tell()
        with suppress(StoreUnavailable):
            await self._database.ask(_GONE, patience=ONCE)
            await self._database.ask(_FORGET, patience=ONCE)

    async def aclose(self) -> None:
        """Tells what can be told now."""
        await self.tell()
        if self._untold:
            log.warning("requests.ends_untold", requests=len(self._untold))


def _turn(request: Request) -> dict[str, Any]:
    names = ("caller", "request_id", "session_id", "turn_id", "accepted_ms", "finished")
    return {name: getattr(request, name) for name in names}
