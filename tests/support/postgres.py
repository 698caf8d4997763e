"""One PostgreSQL server a run of tests (a worker of xdist has its own), and a database of its own for each test.

A conftest takes the fixtures by `from tests.support.postgres import *`, and tests are marked `postgres`.
"""

import os
import signal
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import pytest

from demo.postgres import MISSING, PostgresServer, find_binaries
from tests.support.processes import children_of

__all__ = ["postgres_database", "postgres_server", "standing_still"]


@contextmanager
def standing_still(server: PostgresServer) -> Iterator[None]:
    """A server that takes connections and says nothing: all of its processes are paused."""
    pids = [server.pid, *children_of(server.pid)]
    _signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(pids, signal.SIGCONT)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # a process of the server's own has come to its end
            os.kill(pid, number)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server whose commits are not synced: no test ends the machine."""
    if find_binaries() is None and not os.environ.get("CI"):
        pytest.skip(MISSING)
    with PostgresServer(synced=False) as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty database, which is gone after the test."""
    name = f"test_{uuid.uuid4().hex}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)
