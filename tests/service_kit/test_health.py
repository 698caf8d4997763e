"""Health follows a check: at once, when it changes, and when it hangs."""

import asyncio
import ssl
from typing import Any

from grpc_health.v1 import health_pb2
from structlog.testing import capture_logs

from service_kit.health import AGE_KEY, DETAIL_KEY, NOT_SERVING, SERVING, Health, follow


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


class Answered:
    """Stands for the context of a call."""

    detail = ""
    age_ms = -1

    def set_trailing_metadata(self, metadata: Any) -> None:
        told = dict(metadata)
        self.detail, self.age_ms = told.pop(DETAIL_KEY, b"").decode(), int(told.pop(AGE_KEY))
        assert not told


async def ask(health: Health, service: str) -> tuple[int, str]:
    context: Any = Answered()
    answer = await health.Check(health_pb2.HealthCheckRequest(service=service), context)
    return int(answer.status), context.detail


async def status_of(health: Health, service: str) -> int:
    return (await ask(health, service))[0]


async def becomes(health: Health, status: int) -> None:
    async with asyncio.timeout(30):
        while {await status_of(health, name) for name in ("", "a.B")} != {status}:
            await asyncio.sleep(0.005)


async def test_health_follows_the_check_overall_and_by_service_and_the_log_tells_each_change_once():
    health, need = Health(["a.B"]), Need("no engine")
    with capture_logs() as logged:
        async with follow(health, need, every_seconds=0.01, within_seconds=0.2):
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
    health, need = Health(["a.B"]), Need("")
    async with follow(health, need, every_seconds=0.01, within_seconds=1):
        await becomes(health, SERVING)
        health.drain()
        need.reason = "x"
        await asyncio.sleep(0.05)
        need.reason = ""
        await asyncio.sleep(0.05)
        assert await status_of(health, "") == NOT_SERVING


async def test_a_check_that_raises_counts_as_failed_and_is_asked_again():
    """A TLS error of a model server once ended the task: health then stayed what it was."""
    health, raises = Health(["a.B"]), True

    async def check() -> str:
        if raises:
            raise ssl.SSLError("certificate required")
        return ""

    async with follow(health, check, every_seconds=0.01, within_seconds=1):
        health.set(serves=True)
        await becomes(health, NOT_SERVING)
        raises = False
        await becomes(health, SERVING)


async def test_what_to_look_at_is_told_with_the_status_and_does_not_change_it():
    health, need, note = Health(["a.B"]), Need(""), Need("3 rows were refused")
    with capture_logs() as logged:
        async with follow(health, need, note, every_seconds=0.01, within_seconds=30):
            await becomes(health, SERVING)
            assert await ask(health, "a.B") == (SERVING, "3 rows were refused")
            note.reason = "4 rows were refused"
            async with asyncio.timeout(30):
                while await ask(health, "a.B") != (SERVING, "4 rows were refused"):
                    await asyncio.sleep(0.005)
            need.reason = "no engine"
            await becomes(health, NOT_SERVING)
            assert await ask(health, "") == (NOT_SERVING, "no engine"), "why it does not serve comes first"
            need.reason = note.reason = ""
            await becomes(health, SERVING)
            assert await ask(health, "") == (SERVING, "")
    assert [event["event"] for event in logged if "detail" in event["event"]] == [
        "health.detail",
        "health.detail_settled",
    ]


async def test_a_name_rests_alone_and_watchers_are_told_when_it_does():
    health, need = Health(["a.B", "writer"]), Need("")
    resting: set[str] = set()
    look = asyncio.Event()
    async with follow(health, need, every_seconds=60, within_seconds=1, check_now=look, resting=lambda: resting):
        await becomes(health, SERVING)
        assert await status_of(health, "writer") == SERVING
        resting.add("writer")
        look.set()
        async with asyncio.timeout(30):
            while await status_of(health, "writer") == SERVING:
                await asyncio.sleep(0.005)
        await becomes(health, SERVING)
        health.drain()
        assert await status_of(health, "a.B") == NOT_SERVING


async def test_an_answer_says_how_long_ago_it_was_looked(monkeypatch):
    health, context = Health([]), Answered()
    health.set(serves=True)
    monkeypatch.setattr(health, "_at", health._at - 7)
    said: Any = context
    await health.Check(health_pb2.HealthCheckRequest(), said)
    assert context.age_ms >= 7000
    health.set(serves=True)
    await health.Check(health_pb2.HealthCheckRequest(), said)
    assert context.age_ms < 7000
