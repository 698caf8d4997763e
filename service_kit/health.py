"""Health that follows what a service needs: NOT_SERVING while it could not do its work, SERVING when it can again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as aio_health

log = structlog.get_logger(__name__)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_AGAIN_SECONDS = 1.0

Check = Callable[[], Awaitable[str]]
"""Why the service cannot do its work now; empty when it can. Raises nothing."""


@asynccontextmanager
async def follow(
    health: aio_health.HealthServicer,
    services: Sequence[str],
    check: Check,
    *,
    every_seconds: float,
    within_seconds: float,
) -> AsyncIterator[None]:
    """Sets the health of services, and overall, by check while the body runs; until the first answer it is NOT_SERVING.

    It is asked every so often, and at least each second while the answer is no. A check that takes longer than
    within_seconds counts as failed. A drain that has begun stays NOT_SERVING.
    """
    names = ["", *services]
    await _set(health, names, NOT_SERVING)

    async def repeat() -> None:
        serves, told = False, ""
        while True:
            reason = await _ask(check, within_seconds)
            if serves != (not reason):
                serves = not reason
                await _set(health, names, SERVING if serves else NOT_SERVING)
            if reason and not told:
                log.warning("health.not_serving", reason=reason)
            elif told and not reason:
                log.info("health.serving_again")
            told = reason
            await asyncio.sleep(every_seconds if serves else min(every_seconds, _AGAIN_SECONDS))

    task = asyncio.create_task(repeat(), name="readiness")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _ask(check: Check, within_seconds: float) -> str:
    try:
        async with asyncio.timeout(within_seconds):
            return await check()
    except TimeoutError:
        return f"no answer within {within_seconds:g} s"


async def _set(health: aio_health.HealthServicer, names: Sequence[str], status: int) -> None:
    for name in names:
        await health.set(name, status)
