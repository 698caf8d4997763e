"""grpc.health.v1 that follows what a service needs: NOT_SERVING while it cannot do its work, SERVING when it can."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from recording.upkeep import why_failing
from service_kit.handlers import Context
from service_kit.threads import died_threads

log = structlog.get_logger(__name__)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

CHECK_AGAIN_SECONDS = 1.0
WRITE_SECONDS = 10.0
"""How long a watcher may take to read a status. Then its stream ends."""
LAST_STATUS_SECONDS = 0.5
"""How long a watcher's stream stays open after the last status: a client whose stream has ended may not read it."""

DETAIL_KEY = "onrecord-health-bin"
AGE_KEY = "onrecord-health-age-ms"
"""How long ago it was looked: milliseconds, as a decimal number."""
MAX_DETAIL_CHARACTERS = 500

_Status = Literal[1, 2]
Check = Callable[[], Awaitable[str]]
"""Says why the service cannot do its work now; empty when it can."""


async def nothing() -> str:
    """The check that finds nothing."""
    return ""


class Health(health_pb2_grpc.HealthServicer):
    """One status for the server (the empty name) and its services. No watcher holds up another, nor the server."""

    def __init__(self, services: Sequence[str]) -> None:
        self._names = frozenset(["", *services])
        self._status: _Status = NOT_SERVING
        self._draining = False
        self._detail = ""
        self._at = time.monotonic()
        self._resting: frozenset[str] = frozenset()
        self._watchers: set[asyncio.Event] = set()

    def set(self, *, serves: bool, detail: str = "", resting: Collection[str] = ()) -> None:
        """Changes the status, unless a drain has begun.

        detail goes with each answer to Check, for people. resting: the names that do not serve while the others do.
        """
        self._detail, self._resting, self._at = detail, frozenset(resting), time.monotonic()
        if not self._draining:
            self._status = SERVING if serves else NOT_SERVING
            self._wake()

    def drain(self) -> None:
        """NOT_SERVING from now on. Streams of watchers end when they have told it."""
        self._status, self._draining, self._at = NOT_SERVING, True, time.monotonic()
        self._wake()

    async def Check(  # noqa: N802 - named by the proto
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """The status as it was last looked at, AGE_KEY ago, with a word on it in DETAIL_KEY: both are metadata."""
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service is served here")
        age = (AGE_KEY, str(round((time.monotonic() - self._at) * 1000)))
        context.set_trailing_metadata((age, (DETAIL_KEY, self._detail.encode())) if self._detail else (age,))
        return health_pb2.HealthCheckResponse(status=self._status_of(request.service))

    async def List(self, request: Any, context: Context) -> Any:  # noqa: N802
        """The status now of all names."""
        statuses = {name: health_pb2.HealthCheckResponse(status=self._status_of(name)) for name in self._names}
        # its types are older than this RPC
        return health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined]

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:  # noqa: N802
        """The status now and at each change; of changes that come together the last."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        told = None
        try:
            while True:
                changed.clear()
                known = request.service in self._names
                status = self._status_of(request.service) if known else health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
                if status != told:
                    async with asyncio.timeout(WRITE_SECONDS):
                        await context.write(health_pb2.HealthCheckResponse(status=status))
                    told = status
                elif self._draining:
                    await asyncio.sleep(LAST_STATUS_SECONDS)
                    return
                else:
                    await changed.wait()
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the status was not read in time")
        finally:
            self._watchers.discard(changed)

    def _status_of(self, name: str) -> _Status:
        return NOT_SERVING if name in self._resting else self._status

    def _wake(self) -> None:
        for changed in self._watchers:
            changed.set()


@asynccontextmanager
async def follow(
    health: Health,
    check: Check,
    detail: Check = nothing,
    *,
    every_seconds: float,
    within_seconds: float,
    check_now: asyncio.Event | None = None,
    resting: Callable[[], Collection[str]] = tuple,
) -> AsyncIterator[None]:
    """Sets health by check while the body runs; until the first answer it is NOT_SERVING.

    detail says what to look at while it is SERVING: it is logged when more of it changes than its numbers, and does not
    change the status.
    resting: see Health.set().

    The check is asked every so often, when check_now is set, and at least each second while the answer is no. One that
    raises, or takes longer than within_seconds, has failed; so has one while a thread of the process has died.
    """
    wanted = check_now or asyncio.Event()

    async def repeat() -> None:
        told = noted = ""
        while True:
            wanted.clear()
            note = noted
            try:
                async with asyncio.timeout(within_seconds):
                    reason = died_threads() or await check()
                    note = "; ".join(filter(None, [await detail(), why_failing()]))
            except TimeoutError:
                reason = f"no answer within {within_seconds:g} s"
            except Exception as error:  # a check that cannot tell must not end health
                reason = f"the check failed: {type(error).__name__}"
                if not told:
                    log.exception("health.check_failed")
            health.set(serves=not reason, detail=(reason or note)[:MAX_DETAIL_CHARACTERS], resting=resting())
            if _but_numbers(note) != _but_numbers(noted):
                log.warning("health.detail", detail=note) if note else log.info("health.detail_settled")
            noted = note
            if reason and not told:
                log.warning("health.not_serving", reason=reason)
            elif told and not reason:
                log.info("health.serving_again")
            told = reason
            with suppress(TimeoutError):
                async with asyncio.timeout(min(every_seconds, CHECK_AGAIN_SECONDS) if reason else every_seconds):
                    await wanted.wait()

    task = asyncio.create_task(repeat(), name="health")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _but_numbers(text: str) -> str:
    return re.sub(r"\d+", "", text)
