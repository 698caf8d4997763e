"""Spans over OTLP/gRPC until all are stored: through our door to the ledger's synced commit, and through Phoenix.

Phoenix answers when it has a span in memory, so its time runs until the last span is in its database. It keeps whole
spans, with what was said; ours keeps rows of calls and requests, without content.
"""

import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc

from bench.door import SPANS, Send, cpu_seconds, export, over_grpc, start_door
from bench.figures import Figure, compare
from bench.peers.environments import python_of, version_of
from bench.services import closed_port, start_ledger
from demo.processes import REPOSITORY, environment

_STARTING_SECONDS = 600.0
"""Phoenix imports for ten seconds on a quiet machine, and for minutes beside others."""
_LOOK_SECONDS = 0.02
_WARMING = 1
"""Exports before the first round."""


def measure(place: Path, *, short: bool) -> list[Figure]:
    """Spans a second, and the CPU time that a span takes in all processes of each."""
    exports, rounds = (1, 3) if short else (4, 6)
    with ExitStack() as stack:
        ledger = stack.enter_context(start_ledger(place))
        door = stack.enter_context(start_door(place / "door", ledger.address, "ledger"))
        ours = _Receiver(stack.enter_context(over_grpc(door.address)), (door.pid, ledger.pid), _answered)
        theirs = stack.enter_context(_phoenix(place / "phoenix"))
        for receiver in (ours, theirs):
            _run(receiver, _WARMING)
        runs = [(_run(ours, exports), _run(theirs, exports)) for _ in range(rounds)]
    name = f"Phoenix {version_of('phoenix', 'arize-phoenix')}"
    one, other = zip(*runs, strict=True)
    return [
        compare(
            f"spans: to the ledger's commit; to the database of {name}",
            "spans/s",
            [run.rate for run in one],
            [run.rate for run in other],
            None,
        ),
        compare(
            f"spans: CPU time of one, door and ledger; {name}",
            "µs",
            [run.cpu_us for run in one],
            [run.cpu_us for run in other],
            None,
        ),
    ]


class _Receiver(NamedTuple):
    """What takes spans."""

    send: Send
    pids: tuple[int, ...]
    """Its processes."""
    wait_for: Callable[[int], None]
    """Waits until so many more spans are stored."""


class _Run(NamedTuple):
    rate: float
    """Spans a second, from the first export until all are stored."""
    cpu_us: float
    """The CPU time of one, in all processes of the receiver."""


def _run(receiver: _Receiver, exports: int) -> _Run:
    batches = [export() for _ in range(exports)]
    spans = exports * SPANS
    cpu, began = sum(map(cpu_seconds, receiver.pids)), time.perf_counter()
    for batch in batches:
        receiver.send(batch)
    receiver.wait_for(spans)
    seconds = time.perf_counter() - began
    return _Run(spans / seconds, (sum(map(cpu_seconds, receiver.pids)) - cpu) / spans * 1e6)


def _answered(_spans: int) -> None:
    """Our answer comes behind the ledger's commit."""


@contextmanager
def _phoenix(place: Path) -> Iterator[_Receiver]:
    """Phoenix on a database of SQLite."""
    place.mkdir()
    python, database = python_of("phoenix"), place / "phoenix.db"
    address = f"127.0.0.1:{closed_port()}"
    settings = {
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(closed_port()),
        "PHOENIX_GRPC_PORT": address.rpartition(":")[2],
        "PHOENIX_WORKING_DIR": str(place),
        "PHOENIX_SQL_DATABASE_URL": f"sqlite:///{database}",
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    command = [str(python.with_name("phoenix")), "serve"]
    log = place / "phoenix.log"
    with (
        log.open("w", encoding="utf-8") as out,
        subprocess.Popen(command, env=environment(settings), stdout=out, stderr=out, cwd=REPOSITORY) as process,
    ):
        try:
            _wait_until_it_answers(address, process, log)
            stored = _count(database)

            def wait_for(spans: int) -> None:
                nonlocal stored
                stored += spans
                while _count(database) < stored:
                    if process.poll() is not None:
                        raise RuntimeError(log.read_text("utf-8"))
                    time.sleep(_LOOK_SECONDS)

            with over_grpc(address) as send:
                yield _Receiver(send, (process.pid,), wait_for)
        finally:
            process.kill()


def _wait_until_it_answers(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _STARTING_SECONDS
    while True:
        try:
            with over_grpc(address) as send:
                return send(b"")  # an export of nothing
        except grpc.RpcError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text("utf-8")) from None
            time.sleep(0.5)


def _count(database: Path) -> int:
    """How many spans it has; none is ever removed."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT coalesce(max(id), 0) FROM spans").fetchone()[0])
