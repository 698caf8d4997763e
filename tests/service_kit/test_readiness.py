"""Health follows a check: at once, when it changes, and when it hangs."""

import asyncio
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as aio_health
from structlog.testing import capture_logs

from service_kit.health import NOT_SERVING, SERVING, follow


class Need:
    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.hangs = False
        self.asked = asyncio.Event()

    async def __call__(self) -> str:
        self.asked.set()
        if self.hangs:
            await asyncio.sleep(60)
        return self.reason


async def status_of(health: aio_health.HealthServicer, service: str) -> int:
    no_context: Any = None
    answer = await health.Check(health_pb2.HealthCheckRequest(service=service), no_context)
    return int(answer.status)


async def becomes(health: aio_health.HealthServicer, status: int) -> None:
    async with asyncio.timeout(30):
        while {await status_of(health, name) for name in ("", "a.B")} != {status}:
            await asyncio.sleep(0.005)


async def test_health_follows_the_check_overall_and_by_service_and_the_log_tells_each_change_once():
    health, need = aio_health.HealthServicer(), Need("no engine")
    with capture_logs() as logged:
        async with follow(health, ["a.B"], need, every_seconds=0.01, within_seconds=0.2):
            assert {await status_of(health, name) for name in ("", "a.B")} == {NOT_SERVING}, "before the first answer"
            await asyncio.sleep(0.05)
            assert {await status_of(health, name) for name in ("", "a.B")} == {NOT_SERVING}
            need.reason = ""
            await becomes(health, SERVING)
            need.hangs = True
            await becomes(health, NOT_SERVING)
            need.hangs = False
            await becomes(health, SERVING)
    events = [(event["event"], event.get("reason")) for event in logged]
    assert events == [
        ("health.not_serving", "no engine"),
        ("health.serving_again", None),
        ("health.not_serving", "no answer within 0.2 s"),
        ("health.serving_again", None),
    ]


async def test_a_service_that_is_fit_says_so_and_a_drain_stays_not_serving():
    health, need = aio_health.HealthServicer(), Need("")
    async with follow(health, ["a.B"], need, every_seconds=0.01, within_seconds=1):
        await becomes(health, SERVING)
        await health.enter_graceful_shutdown()
        need.reason = "x"
        await asyncio.sleep(0.05)
        need.reason = ""
        await asyncio.sleep(0.05)
        assert await status_of(health, "") == NOT_SERVING
