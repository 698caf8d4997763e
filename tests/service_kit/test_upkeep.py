"""A task of upkeep that fails is logged, counted and told, and does not end what tries it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from audit_svc.care import keep_retention
from recording import upkeep
from recording.upkeep import attempt
from service_kit.health import Health, follow, nothing
from service_kit.observing.metrics import UpkeepCollector
from tests.service_kit.test_health import ask

pytestmark = pytest.mark.usefixtures("no_upkeep_failed")


async def detail_becomes(health: Health, wanted: str) -> None:
    async with asyncio.timeout(30):
        while (await ask(health, ""))[1] != wanted:
            await asyncio.sleep(0.005)


async def test_a_failure_is_logged_once_counted_each_time_and_told_by_health_until_the_task_succeeds():
    health = Health([])
    with capture_logs() as logged:
        async with follow(health, nothing, every_seconds=0.01, within_seconds=5):
            for _ in range(3):
                with attempt("dusting") as tried:
                    raise OverflowError("too much")
            assert tried.failed
            await detail_becomes(health, "dusting fails: OverflowError")
            with attempt("dusting") as tried:
                pass
            assert not tried.failed
            await detail_becomes(health, "")
    assert [line["task"] for line in logged if line["event"] == "upkeep.failed"] == ["dusting"]
    assert upkeep.failures == {"dusting": 3}


async def test_cancellation_passes_and_is_no_failure():
    with pytest.raises(asyncio.CancelledError), attempt("dusting"):
        raise asyncio.CancelledError
    assert upkeep.why_failing() == ""


def test_the_metric_has_a_number_for_each_task_that_failed():
    registry = CollectorRegistry()
    registry.register(UpkeepCollector())
    for _ in range(2):
        with attempt("pruning"):
            raise OSError
    assert registry.get_sample_value("onrecord_upkeep_failures_total", {"task": "pruning"}) == 2


class Broken:
    """A ledger whose prune ends by a defect, as its erasure does."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def unfinished_prune(self) -> int:
        self.asked.set()
        raise OverflowError("Python int too large to convert to C long")

    async def erase(self, _: object) -> AsyncIterator[None]:
        raise OverflowError("Python int too large to convert to C long")
        yield


async def test_retention_goes_on_after_a_defect_and_says_so():
    ledger: Any = Broken()
    with capture_logs() as logged:
        task = asyncio.create_task(keep_retention(ledger, 30))
        await ledger.asked.wait()
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
    assert upkeep.why_failing() == "retention fails: OverflowError; retention of texts fails: OverflowError"
    assert [line["event"] for line in logged] == ["prune.failed", "erase.failed"]
