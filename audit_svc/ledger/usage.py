"""Usage: what a batch adds to the rollups, counted by columns while the writer is busy with the batch before."""

import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from audit_svc.ledger import histogram
from audit_svc.ledger.columns import Column
from audit_svc.ledger.steps import HOUR_MS
from audit_svc.ledger.tables import COST_COLUMNS, TOOL_CALL_COLUMNS, WITHOUT_DURATION
from audit_svc.ledger.valid_rows import ValidRows

MAX_SUMMED = 2**36 - 1
"""The most that one row adds to a sum, so that 134 million rows with as much do not overflow it."""

Sums = dict[tuple[Any, ...], list[int]]
"""By (begin of a period, then the rest of the rollup's key): its sums in their order. A histogram is a number."""


class Usage:
    """What rows add to the rollups."""

    def __init__(self, tool_calls: ValidRows | None = None, costs: ValidRows | None = None) -> None:
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


def by_step(sums: Sums, step_ms: int) -> Sums:
    """The sums of hours or days by periods of step_ms."""
    if step_ms == HOUR_MS:
        return sums
    coarse: Sums = {}
    for (begins_at, *rest), values in sums.items():
        key = (begins_at - begins_at % step_ms, *rest)
        coarse[key] = list(map(operator.add, coarse[key], values)) if key in coarse else values
    return coarse


def count_calls(rows: ValidRows) -> Sums:
    """The sums of tool calls, by (begin of the hour, engine, model, tool_name, outcome)."""
    columns = _Columns(TOOL_CALL_COLUMNS, rows)
    durations, sizes = columns.numbers("duration_ms"), columns.known_numbers("result_bytes")
    exits, statuses, errors = columns["exit_code"], columns["http_status"], columns["error"]
    sums: Sums = {}
    for key, chosen in columns.groups("engine", "model", "tool_name", "outcome"):
        took, codes = chosen(durations), chosen(exits)
        sums[key] = [
            len(took),
            len(took) - chosen(errors).count(None),
            len(took) - codes.count(None) - codes.count(0),
            sum(status >= 400 for status in chosen(statuses) if status),
            sum(chosen(sizes)),
            sum(took),
            0 if key[-1] in WITHOUT_DURATION else histogram.count(took),
        ]
    return sums


def count_requests(rows: ValidRows) -> Sums:
    """The sums of model requests, by (begin of the hour, engine, model)."""
    columns = _Columns(COST_COLUMNS, rows)
    tokens = [
        columns.numbers(name) for name in ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")
    ]
    costs, errors = columns["cost_micros"], columns["error"]
    sums: Sums = {}
    for key, chosen in columns.groups("engine", "model"):
        prices = chosen(costs)
        sums[key] = [
            len(prices),
            len(prices) - chosen(errors).count(None),
            *(sum(chosen(column)) for column in tokens),
            sum([min(price, MAX_SUMMED) for price in prices if price is not None]),
            prices.count(None),
        ]
    return sums


class _Columns:
    """The rows of a batch by columns."""

    def __init__(self, columns: Sequence[Column], rows: ValidRows) -> None:
        self._names = [column.name for column in columns]
        self._rows = rows

    def __getitem__(self, name: str) -> list[Any]:
        return self._rows.values[self._names.index(name) :: self._rows.width]

    def numbers(self, name: str) -> list[int]:
        values = self[name]
        return values if max(values) <= MAX_SUMMED else [min(value, MAX_SUMMED) for value in values]

    def known_numbers(self, name: str) -> list[int]:
        """As numbers(), with 0 for those that are not known."""
        return [min(value, MAX_SUMMED) if value else 0 for value in self[name]]

    def groups(self, *names: str) -> Iterator[tuple[tuple[Any, ...], Callable[[list[Any]], Sequence[Any]]]]:
        """The keys, each with what takes the values of its rows out of a column. A text that is not set is empty."""
        times = self["created_at"]
        first = min(times) // HOUR_MS * HOUR_MS
        # Nearly all batches are of one period.
        alike = max(times) < first + HOUR_MS
        periods = [first] * len(times) if alike else [time - time % HOUR_MS for time in times]
        groups = defaultdict[tuple[Any, ...], list[int]](list)
        for index, key in enumerate(zip(periods, *map(self.__getitem__, names), strict=True)):
            groups[key].append(index)
        for key, chosen in groups.items():
            yield tuple("" if part is None else part for part in key), _picker(chosen)


def _picker(chosen: list[int]) -> Callable[[list[Any]], Sequence[Any]]:
    """itemgetter(), which gives no sequence for a single one."""
    return operator.itemgetter(*chosen) if len(chosen) > 1 else operator.itemgetter(slice(chosen[0], chosen[0] + 1))
