"""Batches into the tables, inside the transaction that the writer has opened."""

import json
import operator
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from onrecord.audit.v1 import audit_pb2

from audit_svc.ledger.batch import Batch, in_order
from audit_svc.ledger.clock import MAX_AHEAD_MS
from audit_svc.ledger.columns import Column, Problem
from audit_svc.ledger.erased import is_same
from audit_svc.ledger.tables import SESSION_UPDATED
from audit_svc.ledger.usage import Usage
from audit_svc.ledger.valid_rows import ValidRows, Values
from audit_svc.sql.marks import pruned_before
from audit_svc.sql.write.clock import Bounds, mark_suspects
from audit_svc.sql.write.producers import ReceivedRanges
from audit_svc.sql.write.pruned import refuse_old
from audit_svc.sql.write.recorders import Recorders
from audit_svc.sql.write.refusals import note_refusals
from audit_svc.sql.write.session_table import CONFLICT, OTHER_SESSION, SessionTable
from audit_svc.sql.write.summed_sessions import SummedSessions
from audit_svc.sql.writing import Connection

Rejections = list[audit_pb2.Rejection]

OTHER_CONTENT = Problem(
    audit_pb2.REJECTION_CODE_CONFLICT, "the ledger has a row of this caller with this id and other content"
)

SALT_BYTES = 16

_QUERY_COLUMNS = ("caller", "method", "filters", "rows", "duration_ms", "status", "times", "created_at")
_QUERY_VALUES = operator.attrgetter(*_QUERY_COLUMNS[:-1], "created_at_ms")
_INSERT_QUERY = f"INSERT INTO query_log ({', '.join(_QUERY_COLUMNS)}) VALUES ({', '.join('?' * len(_QUERY_COLUMNS))})"  # noqa: S608 - names of ours


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one kind in a batch."""

    rows: ValidRows
    recorded_by: str
    elsewhere: str
    """Where else a row of it may stand: see Recorders.others()."""
    rejections: Rejections
    """To add to."""
    bounds: Bounds | None
    """None where no row can be beyond them."""


def salts(rows: int) -> list[bytes]:
    """A salt for each row, which the hashes of its texts begin with: see docs/seal-format.md."""
    random = os.urandom(rows * SALT_BYTES)
    return [random[first : first + SALT_BYTES] for first in range(0, len(random), SALT_BYTES)]


class LogTable(Protocol):
    """A table whose rows never change."""

    def write(self, groups: Sequence[Group], now_ms: int) -> list[ValidRows]:
        """Inserts the rows of all groups, and returns those of each that are new; those whose id has other content are
        added to the group's rejections, and those that are suspect are marked.
        """
        ...


class Rollups(Protocol):
    """The tables that say what was used in each period."""

    def begin(self) -> None:
        """At the begin of a transaction."""
        ...

    def add(self, usage: Usage) -> None:
        """Adds usage in the transaction."""
        ...

    def committed(self) -> None:
        """After the COMMIT."""
        ...


class Inserts:
    """What writes batches."""

    def __init__(
        self,
        connection: Connection,
        tables: tuple[LogTable, LogTable, LogTable],
        rollups: Rollups,
        prepare: Callable[[str], None] = lambda sql: None,
    ) -> None:
        """Tables: of tool calls, model requests and controls.

        prepare: called with each statement of its own; raises where it does not fit the schema.
        """
        self._connection = connection
        self._tool_calls, self._costs, self._controls = tables
        self._rollups = rollups
        self._sessions = SessionTable(connection)
        self._summed_sessions = SummedSessions(connection)
        self._recorders = Recorders(connection)
        for sql in (_INSERT_QUERY, *self._sessions.statements, *self._summed_sessions.statements):
            prepare(sql)
        self.suspect_rows = 0
        """How many rows of the last write() have a time that the ledger's clock contradicts."""
        self.read_mark()

    def read_mark(self) -> None:
        """Reads up to when the ledger is pruned. Call it again after each prune."""
        self._pruned_before = pruned_before(self._connection)

    def forget(self) -> None:
        """Reads again what is known by heart, in a transaction: somebody else has written."""
        self.read_mark()
        self._recorders = Recorders(self._connection)

    def write(self, batches: Sequence[tuple[Batch, Usage]], now_ms: int) -> list[audit_pb2.RecordResponse]:
        """Writes batches, each with the usage of its rows, and returns a response for each.

        The rows of all batches are inserted together: many producers with a few rows each cost what one with many does.
        """
        self._rollups.begin()
        self._recorders.begin(
            {batch.recorded_by for batch, _ in batches if len(batch) or batch.numbers or batch.session_numbers}
        )
        received = ReceivedRanges(self._connection, now_ms)
        rejections = [list(batch.rejections) for batch, _ in batches]
        kept: list[Batch] = []
        stored: list[int] = []
        bounds: list[Bounds | None] = []
        for (batch, _), refused in zip(batches, rejections, strict=True):
            has_old = False
            if self._pruned_before:
                batch, has_old = refuse_old(self._connection, batch, self._pruned_before, refused)
            kept.append(batch)
            latest_ms = batch.received_ms + MAX_AHEAD_MS
            suspicious = has_old or batch.is_ahead
            bounds.append(Bounds(self._pruned_before, latest_ms, batch.received_ms) if suspicious else None)
            stored.append(self._write_sessions(batch, refused, bounds[-1], now_ms))
            if batch.queries:
                self._connection.executemany(_INSERT_QUERY, map(_QUERY_VALUES, batch.queries))
            if batch.numbers and batch.is_last:
                received.add(batch.recorded_by, *batch.numbers)
            for numbers in batch.session_numbers:
                received.add(batch.recorded_by, *numbers)
        received.write()

        def groups(kind: Callable[[Batch], ValidRows]) -> list[Group]:
            return [
                Group(kind(batch), batch.recorded_by, self._recorders.others(batch.recorded_by), refused, bound)
                for batch, refused, bound in zip(kept, rejections, bounds, strict=True)
            ]

        calls = self._tool_calls.write(groups(lambda batch: batch.tool_calls), now_ms)
        costs = self._costs.write(groups(lambda batch: batch.model_requests), now_ms)
        controls = self._controls.write(groups(lambda batch: batch.controls), now_ms)
        total = Usage()
        responses = []
        for (batch, usage), sessions, its_calls, its_costs, its_controls, refused in zip(
            batches, stored, calls, costs, controls, rejections, strict=True
        ):
            is_whole = len(its_calls) == len(batch.tool_calls) and len(its_costs) == len(batch.model_requests)
            total.add(usage if is_whole else Usage(its_calls, its_costs))
            self._summed_sessions.add(its_calls, its_costs, batch.recorded_by, now_ms)
            if refused:
                note_refusals(self._connection, batch, refused)
            written = sessions + len(its_calls) + len(its_costs) + len(its_controls)
            responses.append(_response(batch, written, refused))
        self._rollups.add(total)
        self.suspect_rows = sum(bound.suspects for bound in bounds if bound)
        return responses

    def committed(self) -> None:
        """After the COMMIT of what was written."""
        self._rollups.committed()
        self._recorders.committed()

    def _write_sessions(self, batch: Batch, rejections: Rejections, bounds: Bounds | None, now_ms: int) -> int:
        sessions, recorded_by, stored = batch.sessions, batch.recorded_by, 0
        others = self._recorders.others(recorded_by)
        for position, row in zip(sessions.positions, sessions.rows(), strict=True):
            written = self._sessions.write(row, recorded_by, others, now_ms)
            if written is CONFLICT:
                rejections.append(sessions.rejection(position, row[0], OTHER_SESSION))
            elif written:
                stored += 1
                if bounds:
                    said = ValidRows([*row], sessions.columns, (position,))
                    mark_suspects(self._connection, "sessions", said, SESSION_UPDATED, bounds, recorded_by)
        return stored


class Matching:
    """Whether a row that was sent is the one that a table has."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns

    def is_same(self, found: Values, row: Values) -> bool:
        """As far as the table can still tell. found: the row's columns, and what it says of what was erased of it."""
        if found[-1] is None:
            return found[:-1] == row
        erased = json.loads(found[-1])
        return is_same(found[:-1], row, [at for at, column in enumerate(self._columns) if column.name in erased])

    def without(self, group: ValidRows, found: Sequence[Values]) -> ValidRows:
        """The rows of a group, with all columns, that are none of those that were found."""
        known = {each[:-1] for each in found if each[-1] is None}
        erased = [each for each in found if each[-1] is not None]
        return group.only(lambda row: row not in known and not any(self.is_same(each, row) for each in erased))


def _response(batch: Batch, stored: int, rejections: Rejections) -> audit_pb2.RecordResponse:
    refused = len(rejections) - len(batch.rejections)
    return audit_pb2.RecordResponse(
        range=audit_pb2.SequenceRange(**batch.numbers._asdict()) if batch.numbers else None,
        stored=stored,
        duplicates=len(batch) - stored - refused,
        rejections=in_order(rejections),
    )
