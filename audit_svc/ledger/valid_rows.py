"""Rows of one kind, checked against the columns of their table, without those that can never be stored."""

import operator
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby, repeat
from typing import Any

from google.protobuf.message import Message
from onrecord.audit.v1 import audit_pb2

from audit_svc.ledger.columns import Column, Problem

READ_ROWS = 50
"""Rows decoded in one call into C, which holds the GIL until it returns: the writer needs it between statements."""

Values = Sequence[Any]

_Run = tuple[str, list[Column]]
"""Columns that are in one message of a row: its path, empty for the row, and they."""


@dataclass(frozen=True, slots=True)
class ValidRows:
    """Rows of one kind that passed all checks, as values of their tables."""

    values: list[Any]
    """All rows' values, concatenated: the bindings of an INSERT of many rows, without a tuple for each."""
    columns: Sequence[Column]
    """Of a row: those of its table, without those of messages that no row sets, which are null in the table.

    These come last, so that the others have the same places in all batches.
    """
    positions: Sequence[int]
    """Where in its list of the request each row was."""
    kind: audit_pb2.RowKind.ValueType = audit_pb2.ROW_KIND_UNSPECIFIED
    """Which list that is."""

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.positions)

    @property
    def width(self) -> int:
        """The number of values in a row."""
        return len(self.columns)

    def rejection(self, position: int, row_id: str, problem: Problem) -> audit_pb2.Rejection:
        """A Rejection of the row at position. Its id is no longer than an id may be."""
        return audit_pb2.Rejection(
            kind=self.kind,
            index=position,
            id=row_id[:128],
            code=problem.code,
            field=problem.field,
            message=problem.message,
        )

    def span(self, first: int, last: int) -> list[Any]:
        """The values of the rows from first to before last."""
        return self.values[first * self.width : last * self.width]

    def part(self, first: int, last: int) -> "ValidRows":
        """The rows from first to before last."""
        return replace(self, values=self.span(first, last), positions=self.positions[first:last])

    def only(self, wanted: Callable[[Values], bool]) -> "ValidRows":
        """The rows for which wanted is true."""
        kept = [(position, row) for position, row in zip(self.positions, self.rows(), strict=True) if wanted(row)]
        values = list(chain.from_iterable(row for _, row in kept))
        return replace(self, values=values, positions=[position for position, _ in kept])

    def rows(self) -> Iterator[Values]:
        """The rows one by one."""
        for index in range(len(self)):
            yield tuple(self.span(index, index + 1))

    def with_all(self, columns: Sequence[Column]) -> "ValidRows":
        """The same rows with all columns of their table, null where they do not have them."""
        if len(columns) == self.width:
            return self
        values: list[Any] = [None] * (len(self) * len(columns))
        for place, column in enumerate(columns):
            if column in self.columns:
                values[place :: len(columns)] = self.values[self.columns.index(column) :: self.width]
        return replace(self, values=values, columns=columns)


NO_ROWS = ValidRows([], (), ())


def accept(
    kind: audit_pb2.RowKind.ValueType,
    columns: tuple[Column, ...],
    rows: Sequence[Message],
    rejections: list[audit_pb2.Rejection],
) -> Generator[None, None, ValidRows]:
    """The rows that can be stored; why the others cannot be is added to rejections. In steps of about a millisecond."""
    if not rows:
        return ValidRows([], columns, (), kind)
    messages = list(rows)
    runs = []
    for run in _runs(columns):
        yield
        if _is_needed(run, messages):
            runs.append(run)
    set_columns = [column for _, run in runs for column in run]
    width = len(set_columns)
    readers = [(path, _reads([column.wire_name.rpartition(".")[2] for column in run])) for path, run in runs]
    values: list[Any] = []
    for first in range(0, len(messages), READ_ROWS):
        part = messages[first : first + READ_ROWS]
        # All of C's own making: a row costs no step of Python.
        fields = [read(map(operator.attrgetter(path), part) if path else part) for path, read in readers]
        values.extend(chain.from_iterable(chain.from_iterable(zip(*fields, strict=True))))
        yield
    are_good = True
    for index, column in enumerate(set_columns):
        yield
        found = values[index::width]
        if column.zero_is_null and not any(found):  # most of what may be unset is unset in a whole batch
            values[index::width] = [None] * len(found)
            continue
        stored = column.store(found, messages)
        if stored is not found:
            values[index::width] = stored
        are_good = are_good and column.holds(stored)
    accepted = ValidRows(values, set_columns, range(len(messages)), kind)
    return accepted if are_good else (yield from _accept_singly(accepted, rejections))


def _runs(columns: Sequence[Column]) -> list[_Run]:
    """The columns in their order, those of one message in a row together.

    An object is made of a message in a field each time that it is read: so once for all of its columns.
    """
    by_path = groupby(columns, key=lambda column: column.wire_name.rpartition(".")[0])
    return [(path, list(run)) for path, run in by_path]


def _is_needed(run: _Run, messages: Sequence[Message]) -> bool:
    """False for the columns of a message that no row sets, which are then null in all rows."""
    path, columns = run
    if not path or not all(column.zero_is_null for column in columns):
        return True
    return any(map(type(messages[0]).HasField, messages, repeat(path)))


def _reads(names: Sequence[str]) -> Callable[[Iterable[Message]], Iterator[tuple[Any, ...]]]:
    """map() of attrgetter(), which gives no tuple for a single name."""
    read = partial(map, operator.attrgetter(*names))
    return read if len(names) > 1 else lambda messages: zip(read(messages))


def _accept_singly(rows: ValidRows, rejections: list[audit_pb2.Rejection]) -> Generator[None, None, ValidRows]:
    kept: list[Any] = []
    positions: list[int] = []
    for number, (position, row) in enumerate(zip(rows.positions, rows.rows(), strict=True)):
        if number % READ_ROWS == 0:
            yield
        checks = (column.problem(value) for column, value in zip(rows.columns, row, strict=True))
        problem = next((found for found in checks if found is not None), None)
        if problem is None:
            kept.extend(row)
            positions.append(position)
        else:
            rejections.append(rows.rejection(position, row[0], problem))
    return replace(rows, values=kept, positions=positions)
