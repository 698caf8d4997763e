"""Calls between the gateways that share the database: rows, and NOTIFY to have them looked at.

Only who may write to the database can make one, so a call says who called the gateway that asks. A notification is a
hint: calls and answers are looked for in their tables when a connection is made, with each beat, and while waiting.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import structlog

from gateway_svc.conversations.encryption import Keys
from gateway_svc.conversations.postgres.database import ONCE, Database
from gateway_svc.conversations.postgres.membership import ALIVE, Membership
from gateway_svc.conversations.postgres.sealing import CallCipher, Passed
from gateway_svc.errors import GatewayError, ShuttingDown, StoreUnavailable

CALLS, ANSWERS = "gateway_calls", "gateway_answers"
"""The channels of NOTIFY, named as the tables."""
WAIT_SECONDS = 10.0
"""How long the others are waited for, but those that have died meanwhile."""
MAX_WAIT_SECONDS = 30.0
KEEP_SECONDS = 60
_LOOK_AGAIN_SECONDS = 0.5

_ASK = f"""WITH {ALIVE}, call AS (
    INSERT INTO gateway_calls (id, asked_by, target, method, request, caller)
    VALUES (%(id)s, %(me)s, %(target)s, %(method)s, %(request)s, %(caller)s)
    ON CONFLICT DO NOTHING
)
SELECT pg_notify('{CALLS}', coalesce(%(target)s::integer::text, '')), ARRAY(SELECT number FROM alive)"""
_ANSWERED = "SELECT gateway, answer, status FROM gateway_answers WHERE call_id = %(id)s"
_ALIVE = f"WITH {ALIVE} SELECT number FROM alive"
_OPEN = f"""SELECT id, asked_by, target, method, request, caller FROM gateway_calls
WHERE asked_by <> %(me)s AND coalesce(target, %(me)s) = %(me)s
  AND asked_at > clock_timestamp() - interval '{MAX_WAIT_SECONDS} s'
  AND NOT EXISTS (SELECT FROM gateway_answers WHERE call_id = id AND gateway = %(me)s) ORDER BY asked_at"""
_ANSWER = f"""WITH told AS (
    INSERT INTO gateway_answers SELECT id, %(me)s, %(answer)s, %(status)s FROM gateway_calls WHERE id = %(id)s
    ON CONFLICT DO NOTHING
)
SELECT pg_notify('{ANSWERS}', asked_by::text) FROM gateway_calls WHERE id = %(id)s"""
_HOLDER = f"""WITH {ALIVE} SELECT holder FROM conversations
WHERE id = %(id)s AND holder <> %(me)s AND holder IN (SELECT number FROM alive)"""
_DONE = "DELETE FROM gateway_calls WHERE id = %(id)s"
_CLEAN = f"DELETE FROM gateway_calls WHERE asked_at < clock_timestamp() - interval '{KEEP_SECONDS} s'"

log = structlog.get_logger(__name__)


class Answer(NamedTuple):
    """What a gateway answered."""

    response: bytes | None
    status: bytes | None
    """Why there is no response: a google.rpc.Status."""
    gateway: int = 0
    """Whose answer it is."""
    error: GatewayError | None = None
    """Why it is not known what that gateway answered: it could not read the call, or its answer cannot be read."""


class Call(NamedTuple):
    """A call that another gateway passes on."""

    method: str
    request: bytes
    caller: str
    """JSON: who has called it; empty where callers have no names."""
    error: GatewayError | None = None
    """Why it cannot be read, which is the answer to it."""


class Calls:
    """The calls of one gateway, to the others and from them."""

    def __init__(self, database: Database, membership: Membership, keys: Keys) -> None:
        """keys: those that calls are encrypted by."""
        self._database = database
        self._keys = keys
        self._membership = membership
        self.answer: Callable[[Call], Awaitable[Answer]] | None = None
        """Answers a call here; must not raise."""
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._forgetting = set[asyncio.Task[None]]()
        self._answered = asyncio.Event()

    async def ask(
        self, call: Call, is_enough: Callable[[Answer], bool], *, to: int | None = None, seconds: float = WAIT_SECONDS
    ) -> list[Answer]:
        """The answers of all other gateways that live, or the first that is enough. to: of that one alone.

        An answer that cannot be read is never enough.

        Raises:
            ShuttingDown: one that lives has not answered in time, and no other answer was enough; or the one is gone.
            StoreUnavailable: the database cannot be used now.
        """
        me, call_id = await self._membership.number(), secrets.randbits(62)
        try:
            cipher = CallCipher(self._keys, call_id, self._keys.first)
            passed = Passed(me, to, call.method, call.request, call.caller)
            values = {**passed._asdict(), "id": call_id, "me": me, "request": cipher.seal_request(passed)}
            ((_, alive),) = await self._database.ask(_ASK, values)
            others = ({*alive} - {me}) if to is None else {to}
            return await self._answers(call_id, cipher, others, is_enough, to, time.monotonic() + seconds)
        finally:
            self._beside(self._forget(call_id))

    async def _answers(
        self,
        call_id: int,
        cipher: CallCipher,
        others: set[int],
        is_enough: Callable[[Answer], bool],
        to: int | None,
        deadline: float,
    ) -> list[Answer]:
        found = dict[int, Answer]()
        while True:
            answered = self._answered
            rows = await self._database.ask(_ANSWERED, {"id": call_id})
            for number, *kept in rows:
                if number in others and number not in found:
                    response, status, error = cipher.open_answer(number, *kept)
                    found[number] = Answer(response, status, number, error)
            enough = [answer for answer in found.values() if answer.error is None and is_enough(answer)]
            missing = others - found.keys()
            if enough or not missing:
                return enough[:1] or list(found.values())
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_SECONDS):
                    await answered.wait()
                    continue
            missing &= {number for (number,) in await self._database.ask(_ALIVE)}
            if missing and time.monotonic() > deadline:
                raise ShuttingDown(f"gateway {min(missing)} of those that share sessions does not answer: try again")
            if to is not None and not missing:
                raise ShuttingDown(f"gateway {to} of those that share sessions is gone: try again")
            others = found.keys() | missing

    async def alive(self) -> set[int]:
        """The other gateways that live.

        Raises:
            StoreUnavailable: the database cannot be used now.
        """
        me = await self._membership.number()
        return {number for (number,) in await self._database.ask(_ALIVE)} - {me}

    async def holder(self, session_id: str) -> int | None:
        """The other gateway that has a session open, and lives; None where there is none.

        Raises:
            StoreUnavailable: the database cannot be used now.
        """
        me = await self._membership.number()
        rows = await self._database.ask(_HOLDER, {"id": session_id, "me": me})
        return int(rows[0][0]) if rows else None

    def tell(self, call: Call, to: int) -> None:
        """Tells another gateway something, and does not wait for it."""

        async def told() -> None:
            with suppress(StoreUnavailable, ShuttingDown):
                await self.ask(call, lambda answer: True, to=to)

        self._beside(told())

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)

    async def _forget(self, call_id: int) -> None:
        with suppress(StoreUnavailable):
            await self._database.ask(_DONE, {"id": call_id}, ONCE)

    async def notified(self, channel: str, payload: str) -> None:
        """Something has happened on a channel, for the gateway that the payload names, or for all."""
        if payload not in ("", str(self._membership.known)):
            return
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
            for call_id, *passed in await self._database.ask(_OPEN, {"me": me}, ONCE):
                if call_id not in self._answering:
                    task = asyncio.create_task(self._answer(me, call_id, Passed(*passed)))
                    self._answering[call_id] = task
                    task.add_done_callback(partial(self._ended, call_id))
            if clean:
                await self._database.ask(_CLEAN, patience=ONCE)

    def _ended(self, call_id: int, task: "asyncio.Task[None]") -> None:
        del self._answering[call_id]

    async def _answer(self, me: int, call_id: int, passed: Passed) -> None:
        if self.answer is not None:
            cipher = CallCipher.answering(self._keys, call_id, passed.request)
            try:
                call = Call(passed.method, cipher.open_request(passed), passed.caller)
            except GatewayError as error:
                log.warning("sessions.call_unreadable", asked_by=passed.asked_by, reason=str(error))
                call = Call(passed.method, b"", "", error)
            answer = await self.answer(call)
            response, status = cipher.seal_answer(me, answer.response, answer.status)
            with suppress(StoreUnavailable):  # who asks waits no longer than it may
                await self._database.ask(_ANSWER, {"me": me, "id": call_id, "answer": response, "status": status})

    async def aclose(self) -> None:
        """Answers no more."""
        self.answer = None
        tasks = [*self._answering.values(), *self._forgetting]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
