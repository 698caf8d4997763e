"""Rows, and a spool's folder that is opened, crashed and read the way a gateway does."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording.logger import Row
from recording.spool import Folders, Spool, SpoolOptions
from recording.spool.records import decode_row


def tool_call(number: int, **fields: object) -> audit_pb2.AuditRow:
    """The row of a call, its id made of number."""
    row = audit_pb2.AuditRow(
        id=f"call-{number}",
        session_id="session-1",
        engine="ollama",
        tool_name="bash",
        args_summary='{"command": "pytest -q"}',
        duration_ms=12,
        outcome=common_pb2.OUTCOME_SUCCEEDED,
        created_at_ms=1_790_000_000_000 + number,
    )
    row.MergeFrom(audit_pb2.AuditRow(**fields))  # type: ignore[arg-type]
    return row


def intent(number: int) -> audit_pb2.AuditRow:
    """What tool_call(number) looks like before the tool runs."""
    row = tool_call(number)
    row.ClearField("outcome")
    row.ClearField("duration_ms")
    return row


def open_spool(state_dir: Path, **options: object) -> Spool:
    """The spool that a gateway with this state directory gets."""
    return Folders(state_dir / "spool", SpoolOptions(**options)).open_own()  # type: ignore[arg-type]


@contextmanager
def opened(state_dir: Path, **options: object) -> Iterator[Spool]:
    """open_spool, closed at the end."""
    spool = open_spool(state_dir, **options)
    try:
        yield spool
    finally:
        spool.close()


def crash(state_dir: Path) -> Path:
    """What a kill -9 of the process at this moment leaves: a copy of its state directory, whose locks are free."""
    while True:
        left = state_dir.with_name(f"{state_dir.name}-crashed-{os.urandom(4).hex()}")
        try:
            shutil.copytree(state_dir, left)
        except shutil.Error:  # a segment was trimmed meanwhile: a copy of no moment
            continue
        return left


def folder_of(state_dir: Path) -> Path:
    """The folder of the only spool below state_dir."""
    (lock,) = (state_dir / "spool").glob("*/lock")
    return lock.parent


def segments_of(state_dir: Path) -> list[Path]:
    """The segments of the only spool below state_dir, the oldest first."""
    return sorted(folder_of(state_dir).glob("*.segment"))


def read_all(spool: Spool, max_rows: int = 500, *, ack: bool = True) -> list[Row]:
    """Every row that lies ahead, acked unless ack is false."""
    rows: list[Row] = []
    while (batch := spool.read(max_rows, 2**20)) is not None:
        rows += map(decode_row, batch.payloads)
        if batch.payloads and ack:
            spool.ack(batch)
    return rows


def ids(rows: list[Row]) -> list[str]:
    """Their ids."""
    return [row.id for row in rows]
