"""A loop that stands still says where."""

import asyncio
import time

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service_kit.observing.loop_watch import LoopWatch


async def test_where_it_stands_is_told_once_without_values():
    registry = CollectorRegistry()
    watch = LoopWatch(registry, stall_seconds=0.01)

    def stand_still(secret: str) -> None:
        while not watch.stalls:
            time.sleep(0.01)
        time.sleep(0.05)

    with capture_logs() as lines, watch.watching():
        stand_still("hunter2hunter2")
        await asyncio.sleep(0)
    told = [line for line in lines if line["event"] == "loop.stalled"]
    assert any(frame.endswith("stand_still") for frame in told[0]["stack"])
    assert "hunter2" not in str(told)
    assert len(told) == 1
    assert registry.get_sample_value("onrecord_loop_stalls_total") == 1
