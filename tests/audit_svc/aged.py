"""Ledgers with a past: rows spread over hours that a test can prune."""

import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path

import apsw
from onrecord.audit.v1 import audit_pb2

from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.steps import HOUR_MS
from audit_svc.sqlite.open.connection import open_for_writing
from audit_svc.sqlite.open.served import mark_served
from audit_svc.sqlite.write.writer import Writer
from tests.audit_svc.empty import write_empty
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, record_request, session_row

THIS_HOUR = NOW_MS - NOW_MS % HOUR_MS


def ago(hours: float) -> int:
    """A time in milliseconds, counted back from the beginning of this hour."""
    return THIS_HOUR - round(hours * HOUR_MS)


def hour_of_rows(hours: int, calls: int = 10) -> audit_pb2.RecordRequest:
    """What a session that lived within one hour sent: calls, each tenth failed, a fifth as many requests, its row."""
    name = f"session-{hours}"
    times = [ago(hours) + index * HOUR_MS // calls for index in range(calls)]
    return record_request(
        tool_calls=[
            audit_row(
                id=f"call-{hours}-{index}", session_id=name, created_at_ms=at, error=None if index % 10 else "it broke"
            )
            for index, at in enumerate(times)
        ],
        model_requests=[
            cost_row(id=f"cost-{hours}-{index}", session_id=name, created_at_ms=at)
            for index, at in enumerate(times[::5])
        ],
        sessions=[session_row(id=name, created_at_ms=times[0], updated_at_ms=times[-1])],
    )


def make_ledger(path: Path, hours: int, calls: int = 10) -> None:
    """A closed database with one session in each of the last hours, written once for all tests of a process."""
    path.write_bytes(_content(hours, calls))
    path.chmod(0o600)
    mark_served(path)


@cache
def _content(hours: int, calls: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.db"
        write_empty(path)
        fill(open_for_writing(path), hours, calls)
        return path.read_bytes()


def fill(connection: apsw.Connection, hours: int, calls: int = 10) -> None:
    """Writes one session in each of the last hours, and closes connection, as a service does that ends."""
    mark_served(Path(connection.filename))
    with closing(Writer(connection, 50_000)) as writer:
        for hour in range(hours, 0, -1):
            writer.record(read_batch(hour_of_rows(hour, calls), NOW_MS)).result()
