"""Usage: what a batch adds to the rollups, counted by columns while the writer is busy with the batch before."""

import operator
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from audit_svc.store import histogram
from audit_svc.store.columns import Column
from audit_svc.store.rows import COST_COLUMNS, TOOL_CALL_COLUMNS, Accepted

HOUR_MS = 3_600_000
MAX_SUMMED = 2**36 - 1
"""What one row adds to a sum at most, so that no sum of a database that fits on a disk overflows."""

Sums = dict[tuple[Any, ...], list[int]]
"""By (hour, then the key of the rollup): the sums in the order of the rollup's columns; a histogram is a number."""


class Usage:
    """What rows add to the rollups."""

    def __init__(self, tool_calls: Accepted | None = None, costs: Accepted | None = None) -> None:
        self.calls: Sums = count_calls(tool_calls) if tool_calls else {}
        self.requests: Sums = count_requests(costs) if costs else {}

    def add(self, other: "Usage") -> None:
        """Adds what other rows add."""
        add_sums(self.calls, other.calls)
        add_sums(self.requests, other.requests)


def add_sums(sums: Sums, others: Sums) -> None:
    """Adds others to sums."""
    for key, values in others.items():
        sums[key] = list(map(operator.add, sums[key], values)) if key in sums else values


def count_calls(rows: Accepted) -> Sums:
    """The sums of tool calls, by (hour, engine, model, tool_name, outcome)."""
    columns = _Columns(TOOL_CALL_COLUMNS, rows)
    durations, sizes = columns.numbers("duration_ms"), columns.numbers("result_bytes")
    exits, statuses, errors = columns["exit_code"], columns["http_status"], columns["error"]
    sums: Sums = {}
    for key, chosen in columns.groups("engine", "model", "tool_name", "outcome"):
        took = [durations[index] for index in chosen]
        codes = [exits[index] for index in chosen]
        sums[key] = [
            len(chosen),
            len(chosen) - [errors[index] for index in chosen].count(None),
            len(chosen) - codes.count(None) - codes.count(0),
            sum([(statuses[index] or 0) >= 400 for index in chosen]),
            sum([sizes[index] for index in chosen]),
            sum(took),
            histogram.count(took),
        ]
    return sums


def count_requests(rows: Accepted) -> Sums:
    """The sums of model requests, by (hour, engine, model)."""
    columns = _Columns(COST_COLUMNS, rows)
    tokens = [
        columns.numbers(name) for name in ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")
    ]
    costs, errors = columns["cost_micros"], columns["error"]
    sums: Sums = {}
    for key, chosen in columns.groups("engine", "model"):
        prices = [costs[index] for index in chosen]
        sums[key] = [
            len(chosen),
            len(chosen) - [errors[index] for index in chosen].count(None),
            *(sum([column[index] for index in chosen]) for column in tokens),
            sum([min(price, MAX_SUMMED) for price in prices if price is not None]),
            prices.count(None),
        ]
    return sums


class _Columns:
    """The rows of a batch by columns."""

    def __init__(self, columns: Sequence[Column], rows: Accepted) -> None:
        self._names = [column.name for column in columns]
        self._rows = rows

    def __getitem__(self, name: str) -> list[Any]:
        return self._rows.values[self._names.index(name) :: self._rows.width]

    def numbers(self, name: str) -> list[int]:
        values = self[name]
        return values if max(values) <= MAX_SUMMED else [min(value, MAX_SUMMED) for value in values]

    def groups(self, *names: str) -> Iterator[tuple[tuple[Any, ...], list[int]]]:
        """The keys, with the numbers of their rows. A text that is not set is empty in a key."""
        times = self["created_at"]
        first = min(times) // HOUR_MS * HOUR_MS
        # Nearly all batches are of one hour.
        hours = [first] * len(times) if max(times) < first + HOUR_MS else [time - time % HOUR_MS for time in times]
        groups = defaultdict[tuple[Any, ...], list[int]](list)
        for index, key in enumerate(zip(hours, *map(self.__getitem__, names), strict=True)):
            groups[key].append(index)
        for key, chosen in groups.items():
            yield tuple("" if part is None else part for part in key), chosen
