"""Threads for work that may hang: one call each, and whoever gives up is not held."""

import asyncio
import subprocess
import sys
import threading

import pytest

from gateway_svc import threads as threads_module
from gateway_svc.errors import Overloaded
from gateway_svc.threads import Threads


async def test_a_thread_serves_one_call_after_another_and_never_two():
    """It may be idle before its caller hears of it, and a call that hangs keeps it."""
    threads, answer = Threads("looks"), threading.Event()
    served = {await threads.run(threading.get_ident) for _ in range(100)}
    assert len(served) == 1
    held = asyncio.create_task(threads.run(lambda: (threading.get_ident(), answer.wait(60))))
    await asyncio.sleep(0)
    assert await threads.run(threading.get_ident) not in served
    answer.set()
    assert (await held)[0] in served


async def test_an_idle_thread_ends_and_an_error_does_not_end_one(monkeypatch):
    threads, served = Threads("looks that fail"), list[threading.Thread]()

    def fail() -> None:
        served.append(threading.current_thread())
        raise BlockingIOError

    for _ in range(2):
        with pytest.raises(BlockingIOError):
            await threads.run(fail)
    assert served[0] is served[1]
    monkeypatch.setattr(threads_module, "IDLE_SECONDS", 0.01)
    await threads.run(lambda: None)
    while served[0].is_alive():
        await asyncio.sleep(0.001)
    assert await threads.run(lambda: "again") == "again"


async def test_beyond_a_number_of_threads_left_behind_calls_are_refused_until_they_end():
    threads, answer, undone = Threads("looks", at_once=1, left_behind=2), threading.Event(), list[bool]()
    for _ in range(2):
        call = asyncio.create_task(threads.run(lambda: answer.wait(60), undone.append))
        await asyncio.sleep(0)
        while not call.cancel():
            await asyncio.sleep(0)
        await asyncio.wait([call])
    with pytest.raises(Overloaded, match="too many looks of earlier calls hang"):
        await threads.run(lambda: None)
    answer.set()
    while len(undone) < 2:
        await asyncio.sleep(0.001)
    assert await threads.run(lambda: "again") == "again"


@pytest.mark.long
def test_the_process_ends_beside_a_thread_that_does_not():
    code = """
import asyncio, threading
from gateway_svc.threads import Threads

async def main():
    call = asyncio.create_task(Threads("looks").run(threading.Event().wait))
    await asyncio.sleep(0.1)
    call.cancel()

asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=True).returncode == 0
