"""A pytest plugin: a test that leaves a thread running fails.

A thread that is no daemon keeps the interpreter from ending, so pytest would hang behind the test that leaked it. What
a fixture of a wider scope starts may run on until that fixture ends. Idle threads of executors end by themselves.
"""

import concurrent.futures.thread as executors
import os
import sys
import threading
from collections.abc import Generator
from typing import Any

import pytest

_GRACE_SECONDS = 2.0
_allowed: set[threading.Thread] = set()
_leaked: list[threading.Thread] = []


def _running() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.daemon and thread not in executors._threads_queues}


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Generator[None, Any, Any]:
    before = _running()
    result = yield
    if fixturedef.scope != "function":
        _allowed.update(_running() - before)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, Any, Any]:
    _allowed.update(_running())
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, Any, Any]:
    result = yield
    left = _running() - _allowed
    for thread in left:
        thread.join(_GRACE_SECONDS)
    if left := {thread for thread in left if thread.is_alive()}:
        _allowed.update(left)
        _leaked.extend(left)
        names = ", ".join(sorted(thread.name for thread in left))
        pytest.fail(f"the test left threads running: {names}. Open what starts them by a fixture that closes it")
    return result


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends a process that a leaked thread would keep from ending."""
    if any(thread.is_alive() for thread in _leaked):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
