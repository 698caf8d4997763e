"""One replica writes: another does within seconds of its end, however it ends, and never two."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing

import psycopg
import pytest

from audit_svc.postgres.open import migrate
from audit_svc.postgres.open.connection import Connection, connect
from demo.postgres import PostgresServer
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.postgres

FAR_TOO_LONG_SECONDS = 60


class Replica:
    """A process; see tests.audit_svc.postgres.replica."""

    def __init__(self, url: str, address: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.audit_svc.postgres.replica", url, address], stdin=pipe, stdout=pipe, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def close(self) -> None:
        self.process.kill()
        self._reading.join()
        with self.process:  # closes its pipes
            self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.strip())

    def wait_until(self, said: str) -> None:
        while self._lines.get(timeout=FAR_TOO_LONG_SECONDS) != said:
            pass

    def say(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait()


@pytest.fixture
def url(postgres_database: str, migrated: Connection) -> str:
    """Of a database with the schema in it."""
    return postgres_database


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _start(stack: ExitStack, url: str, address: str) -> Replica:
    replica = Replica(url, address)
    stack.callback(replica.close)
    return replica


def _pair(stack: ExitStack, url: str, url_of_first: str = "") -> tuple[Replica, Replica]:
    first = _start(stack, url_of_first or url, "first:1")
    first.wait_until("writes")
    second = _start(stack, url, "second:2")
    second.wait_until("stands by first:1")
    return first, second


def _epochs(url: str) -> tuple[int, int]:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT l.epoch, w.epoch FROM ledger_lease l, ledger_writer w").fetchone()
    assert row is not None
    return row


def test_a_killed_writer_is_followed(url: str, stack: ExitStack) -> None:
    first, second = _pair(stack, url)
    before, _ = _epochs(url)
    first.end()
    second.wait_until("writes")
    lease, writer = _epochs(url)
    assert before < lease == writer
    third = _start(stack, url, "third:3")
    third.wait_until("stands by second:2")


def test_a_writer_that_ends_as_asked_hands_over(url: str, stack: ExitStack) -> None:
    first, second = _pair(stack, url)
    first.end(signal.SIGINT)
    second.wait_until("writes")


def test_a_paused_writer_cannot_commit_when_it_wakes(url: str, stack: ExitStack) -> None:
    first, second = _pair(stack, url)
    first.say()
    first.wait_until("holds")
    os.kill(first.process.pid, signal.SIGSTOP)
    second.wait_until("writes")
    second.say()
    second.wait_until("holds")
    second.say()
    second.wait_until("committed")
    os.kill(first.process.pid, signal.SIGCONT)
    first.say()
    first.wait_until("refused")
    first.wait_until("stands by second:2")


def test_a_writer_whose_network_is_cut_is_followed_and_knows(
    url: str, stack: ExitStack, postgres_server: PostgresServer
) -> None:
    proxy = stack.enter_context(Proxy(f"127.0.0.1:{postgres_server.port}"))
    first, second = _pair(stack, url, url.replace(f"127.0.0.1:{postgres_server.port}", proxy.address))
    proxy.behaviour = "black_hole"
    second.wait_until("writes")
    first.wait_until("knows nobody")
    proxy.behaviour = "pass"
    proxy.cut()
    first.wait_until("stands by second:2")


def test_the_writer_goes_on_after_the_database_was_killed(stack: ExitStack) -> None:
    with PostgresServer(synced=False) as server:
        own = server.create_database("ledger")
        with closing(connect(own, writes=True)) as connection:
            migrate.up(connection, migrate.load_migrations())
        first = _start(stack, own, "first:1")
        first.wait_until("writes")
        before, _ = _epochs(own)
        server.kill()
        first.wait_until("knows nobody")
        server.start()
        first.wait_until("writes")
        assert _epochs(own) == (before, before)


def test_without_advisory_locks_the_lease_alone_decides(url: str, stack: ExitStack) -> None:
    with psycopg.connect(url) as connection:  # as a database that lacks them answers
        connection.execute("ALTER DATABASE " + connection.info.dbname + " SET search_path = bare, public, pg_catalog")
        connection.execute("CREATE SCHEMA bare")
        connection.execute(
            "CREATE FUNCTION bare.pg_try_advisory_lock(integer, integer) RETURNS boolean LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'feature_not_supported'; END $$"
        )
    first, second = _pair(stack, url)
    first.end()
    second.wait_until("writes")


def test_of_many_one_begins(url: str, stack: ExitStack) -> None:
    replicas = {f"replica:{number}": _start(stack, url, f"replica:{number}") for number in range(4)}
    while len(replicas) > 1:
        address = _wait_for_writer(url, replicas)
        replicas.pop(address).end()
        epoch, _ = _epochs(url)
    _wait_for_writer(url, replicas)
    lease, writer = _epochs(url)
    assert epoch < lease == writer


def _wait_for_writer(url: str, replicas: Collection[str]) -> str:
    deadline = time.monotonic() + FAR_TOO_LONG_SECONDS
    with psycopg.connect(url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            row = connection.execute("SELECT address FROM ledger_lease").fetchone()
            if row is not None and row[0] in replicas:
                return str(row[0])
    raise TimeoutError("nobody writes")
