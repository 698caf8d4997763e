"""Calls between the gateways that share the database: rows, and NOTIFY to have them looked at.

Only who may write to the database can make one, so a call says who called the gateway that asks. A notification is a
hint: calls and answers are looked for in their tables when a connection is made, with each beat, and while waiting.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import structlog

from gateway_svc.conversations.postgres.database import Database
from gateway_svc.conversations.postgres.membership import ALIVE, Membership
from gateway_svc.errors import ShuttingDown, StoreUnavailable

CALLS, ANSWERS = "gateway_calls", "gateway_answers"
"""The channels of NOTIFY, named as the tables."""
WAIT_SECONDS = 10.0
"""How long the others are waited for, but those that have died meanwhile."""
KEEP_SECONDS = 60
_LOOK_AGAIN_SECONDS = 0.5

_ASK = f"""WITH {ALIVE}, call AS (
    INSERT INTO gateway_calls (asked_by, method, request, caller) VALUES (%(me)s, %(method)s, %(request)s, %(caller)s)
    RETURNING id
)
SELECT id, pg_notify('{CALLS}', ''), ARRAY(SELECT number FROM alive WHERE number <> %(me)s) FROM call"""
_ANSWERED = "SELECT gateway, answer, status FROM gateway_answers WHERE call_id = %(id)s"
_ALIVE = f"WITH {ALIVE} SELECT number FROM alive"
_OPEN = f"""SELECT id, method, request, caller FROM gateway_calls
WHERE asked_by <> %(me)s AND asked_at > clock_timestamp() - interval '{WAIT_SECONDS} s'
  AND NOT EXISTS (SELECT FROM gateway_answers WHERE call_id = id AND gateway = %(me)s) ORDER BY id"""
_ANSWER = f"""WITH told AS (
    INSERT INTO gateway_answers SELECT id, %(me)s, %(answer)s, %(status)s FROM gateway_calls WHERE id = %(id)s
    ON CONFLICT DO NOTHING
)
SELECT pg_notify('{ANSWERS}', '')"""
_CLEAN = f"DELETE FROM gateway_calls WHERE asked_at < clock_timestamp() - interval '{KEEP_SECONDS} s'"

log = structlog.get_logger(__name__)


class Answer(NamedTuple):
    """What a gateway answered."""

    response: bytes | None
    status: bytes | None
    """Why there is no response: a google.rpc.Status."""


class Call(NamedTuple):
    """A call that another gateway passes on."""

    method: str
    request: bytes
    caller: str
    """JSON: who has called it; empty where callers have no names."""


class Calls:
    """The calls of one gateway, to the others and from them."""

    def __init__(self, database: Database, membership: Membership) -> None:
        self._database = database
        self._membership = membership
        self.answer: Callable[[Call], Awaitable[Answer]] | None = None
        """Answers a call here; must not raise."""
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._answered = asyncio.Event()

    async def ask(self, call: Call, is_enough: Callable[[Answer], bool]) -> list[Answer]:
        """The answers of all other gateways, or those up to the first that is enough.

        Raises:
            ShuttingDown: one that lives has not answered in time, and no other answer was enough.
            StoreUnavailable: the database cannot be used now.
        """
        me = await self._membership.number()
        rows = await self._database.ask(_ASK, {"me": me, **call._asdict()})
        call_id, _, others = rows[0]
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            answered = self._answered
            found = {number: Answer(*rest) for number, *rest in await self._database.ask(_ANSWERED, {"id": call_id})}
            enough = [answer for answer in found.values() if is_enough(answer)]
            missing = set(others) - found.keys()
            if enough or not missing:
                return enough[:1] or list(found.values())
            if time.monotonic() > deadline:
                missing &= {number for (number,) in await self._database.ask(_ALIVE)}
                if not missing:
                    return list(found.values())
                raise ShuttingDown(f"gateway {min(missing)} of those that share sessions does not answer: try again")
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_SECONDS):
                    await answered.wait()

    async def notified(self, channel: str) -> None:
        """Something has happened on a channel."""
        if channel == ANSWERS:
            self._answered.set()
            self._answered = asyncio.Event()
        else:
            await self.look()

    async def look(self, *, clean: bool = False) -> None:
        """Begins to answer the calls that wait for it."""
        if self.answer is None:
            return
        with suppress(StoreUnavailable):
            me = await self._membership.number()
            for call_id, *call in await self._database.ask(_OPEN, {"me": me}, patient=False):
                if call_id not in self._answering:
                    task = asyncio.create_task(self._answer(me, call_id, Call(*call)))
                    self._answering[call_id] = task
                    task.add_done_callback(partial(self._ended, call_id))
            if clean:
                await self._database.ask(_CLEAN, patient=False)

    def _ended(self, call_id: int, task: "asyncio.Task[None]") -> None:
        del self._answering[call_id]

    async def _answer(self, me: int, call_id: int, call: Call) -> None:
        if self.answer is not None:
            answer = await self.answer(call)
            with suppress(StoreUnavailable):  # who asks waits no longer than it may
                values = {"me": me, "id": call_id, "answer": answer.response, "status": answer.status}
                await self._database.ask(_ANSWER, values)

    async def aclose(self) -> None:
        """Answers no more."""
        self.answer = None
        tasks = list(self._answering.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
