"""The size of a row on the ledger's disk: `python -m bench.capacity`. docs/operations.md quotes it for planning."""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import apsw
import grpc
from onrecord.audit.v1 import audit_pb2, audit_pb2_grpc
from onrecord.common.v1 import common_pb2
from uuid_utils import uuid7

from bench.rows import make_rows
from bench.services import start_ledger, wait_until_indexed
from demo.processes import REPOSITORY
from recording.channel.options import CLIENT_OPTIONS
from recording.rows import ROW_VERSION
from service_kit.terminal.command import Option, echo
from service_kit.terminal.program import run

DAY_MS = 86_400_000
ROWS_A_BATCH = 3000
"""Tool calls in a batch, which has as many model requests and a session now and then."""


def batches(calls: int) -> Iterator[audit_pb2.RecordRequest]:
    """A day of tool calls, each with its model request, and their sessions."""
    begin = time.time_ns() // 1_000_000 - DAY_MS
    numbered = enumerate(make_rows(calls))
    sessions: set[str] = set()
    while part := list(itertools.islice(numbered, ROWS_A_BATCH)):
        request = audit_pb2.RecordRequest(row_version=ROW_VERSION)
        for number, row in part:
            row.created_at_ms = begin + number * DAY_MS // calls
            request.tool_calls.append(row)
            request.model_requests.add(
                id=str(uuid7()),
                session_id=row.session_id,
                turn_id=row.turn_id,
                engine=row.engine,
                model=row.model,
                requested_model=row.model,
                input_tokens=4000 + number % 4000,
                output_tokens=number % 800,
                cost_micros=number % 9000,
                duration_ms=1500,
                created_at_ms=row.created_at_ms,
            )
            if row.session_id not in sessions:
                sessions.add(row.session_id)
                request.sessions.add(
                    id=row.session_id,
                    revision=1,
                    engine=row.engine,
                    model=row.model,
                    status=common_pb2.SESSION_STATUS_IDLE,
                    labels={"user": f"user-{number % 50}", "team": "research"},
                    created_at_ms=row.created_at_ms,
                    updated_at_ms=row.created_at_ms,
                )
        yield request


async def fill(address: str, calls: int) -> None:
    """Records a day's rows."""
    async with grpc.aio.insecure_channel(address, CLIENT_OPTIONS) as channel:
        stub = audit_pb2_grpc.AuditServiceStub(channel)
        for batch in batches(calls):
            response = await stub.RecordBatch(batch)
            if response.rejections:
                raise SystemExit(f"rejected: {response.rejections[0].message}")


def report(path: Path, calls: int) -> Iterator[str]:
    """The file's size, and that of each table with its indexes."""
    database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    sizes = database.execute(
        "SELECT tbl_name, sum(pgsize) FROM dbstat JOIN sqlite_schema USING (name) GROUP BY tbl_name ORDER BY 2 DESC"
    )
    yield f"{calls:,} calls, {calls:,} model requests, one day: {path.stat().st_size:,} bytes"
    for table, size in sizes:
        (rows,) = next(database.execute(f'SELECT count(*) FROM "{table}"'))
        yield f"{table:28}{rows:>10,} rows {size:>14,} bytes {size / rows if rows else 0:>8.0f} a row"


def main(calls: Annotated[int, Option(help="Tool calls of the day.")] = 1_000_000) -> None:
    """Fill a ledger with a day's rows and print their size."""
    state = REPOSITORY / ".state"
    state.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=state, prefix="capacity-") as folder:
        with start_ledger(Path(folder)) as ledger:
            asyncio.run(fill(ledger.address, calls))
            wait_until_indexed(Path(folder) / "audit.db")
            ledger.terminate(timeout=120)
        for line in report(Path(folder) / "audit.db", calls):
            echo(line)


if __name__ == "__main__":
    run(main)
