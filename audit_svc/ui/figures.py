"""The figures behind the charts. What is asked over all rows comes from the rollups."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from audit_svc.ledger import histogram

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MAX_SERIES = 8
"""Tools or models that have a colour of their own; the rest are counted together."""
MAX_ENTRIES = 500
"""Entries of a session that its timeline shows."""
OTHERS = "(others)"


class Database(Protocol):
    """What Datasette calls a database."""

    async def execute(self, sql: str, params: Mapping[str, Any]) -> Iterable[Sequence[Any]]:
        """The rows that sql finds."""
        ...


@dataclass(frozen=True, slots=True)
class Figures:
    """Numbers for one chart: for each series one for each place on the x axis, None where there is none."""

    title: str
    places: list[str]
    series: dict[str, list[float | None]]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a session. Times are in milliseconds, from the session's first entry."""

    kind: str
    name: str
    outcome: str
    begins_ms: int
    duration_ms: int
    failed: bool


async def calls_and_errors(ledger: Database, from_ms: int, until_ms: int) -> tuple[Figures, Figures]:
    """Tool calls and their errors by tool, by hour in up to two days, else by day."""
    hourly = until_ms - from_ms <= 2 * DAY_MS
    step, table = (HOUR_MS, "tool_call_usage_hourly") if hourly else (DAY_MS, "tool_call_usage_daily")
    first = from_ms - from_ms % step
    rows = list(
        await ledger.execute(
            f"SELECT begins_at, tool_name, sum(calls), sum(errors) FROM {table} "  # noqa: S608 - names of ours
            "WHERE begins_at >= :first AND begins_at < :until GROUP BY 1, 2",
            {"first": first, "until": until_ms},
        )
    )
    times = list(range(first, until_ms, step))
    places = [_moment(time, hourly=hourly) for time in times]
    tools = _largest((tool, calls) for _, tool, calls, _ in rows)
    counted = []
    for title, column in (("Tool calls", 2), ("Errors", 3)):
        series: dict[str, list[float | None]] = {tool: [0] * len(times) for tool in tools}
        for row in rows:
            name = row[1] if row[1] in series else OTHERS
            values = series.setdefault(name, [0] * len(times))
            at = (row[0] - first) // step
            values[at] = (values[at] or 0) + row[column]
        counted.append(Figures(f"{title} by {'hour' if hourly else 'day'} and tool", places, series))
    return counted[0], counted[1]


async def latencies(ledger: Database, from_ms: int, until_ms: int) -> Figures:
    """Percentiles of the tools' durations in milliseconds, of whole days, within 1/32."""
    rows = await ledger.execute(
        "SELECT tool_name, calls, durations FROM tool_call_usage_daily "
        "WHERE begins_at >= :first AND begins_at < :until",
        {"first": from_ms - from_ms % DAY_MS, "until": until_ms},
    )
    merged: dict[str, int] = defaultdict(int)
    weights: dict[str, int] = defaultdict(int)
    for tool, calls, durations in rows:
        merged[tool] += histogram.from_blob(durations)
        weights[tool] += calls
    tools = _largest(weights.items())
    # Each has calls, and so quantiles.
    found = [histogram.quantiles(merged[tool], (0.5, 0.95, 0.99)) for tool in tools]
    series: dict[str, list[float | None]] = {
        name: [values[place] for values in found] for place, name in enumerate(("p50", "p95", "p99"))
    }
    return Figures("Duration by tool, in milliseconds", tools, series)


async def cost_by_label(ledger: Database, key: str, from_ms: int, until_ms: int) -> Figures:
    """What was spent in US dollars, by the value of a label and by model."""
    rows = list(
        await ledger.execute(
            "SELECT coalesce(value, '(none)'), cost_log.model, total(cost_micros) / 1e6 FROM cost_log "
            "LEFT JOIN session_labels l ON l.session_id = cost_log.session_id AND l.recorded_by = cost_log.recorded_by "
            "AND key = :key "
            "WHERE created_at >= :first AND created_at < :until GROUP BY 1, 2",
            {"key": key, "first": from_ms, "until": until_ms},
        )
    )
    values = _largest((value, cost) for value, _, cost in rows)
    models = _largest((model, cost) for _, model, cost in rows)
    series: dict[str, list[float | None]] = {model: [None] * len(values) for model in models}
    for value, model, cost in rows:
        if value in values:
            spent = series.setdefault(model if model in models else OTHERS, [None] * len(values))
            at = values.index(value)
            spent[at] = (spent[at] or 0) + cost
    return Figures(f"Cost in US dollars by {key} and model", values, series)


async def label_keys(ledger: Database) -> list[str]:
    """The keys of labels that there are."""
    return [str(row[0]) for row in await ledger.execute("SELECT DISTINCT key FROM session_labels ORDER BY 1", {})]


async def timeline(ledger: Database, session_id: str) -> list[Event]:
    """What happened in a session, the first MAX_ENTRIES entries."""
    rows = list(
        await ledger.execute(
            "SELECT 'tool call', tool_name, coalesce(outcome, ''), created_at, duration_ms, error IS NOT NULL "
            "FROM tool_call_log WHERE session_id = :session UNION ALL "
            "SELECT 'model request', model, '', created_at, duration_ms, error IS NOT NULL "
            "FROM cost_log WHERE session_id = :session ORDER BY 4 LIMIT :entries",
            {"session": session_id, "entries": MAX_ENTRIES},
        )
    )
    return [
        Event(kind, name, outcome, began - rows[0][3], duration_ms, bool(failed))
        for kind, name, outcome, began, duration_ms, failed in rows
    ]


def _largest(weights: Iterable[tuple[str, float]]) -> list[str]:
    sums: dict[str, float] = defaultdict(float)
    for name, weight in weights:
        sums[name] += weight
    return sorted(sums, key=lambda name: (-sums[name], name))[:MAX_SERIES]


def _moment(time_ms: int, *, hourly: bool) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%m-%d %H:00" if hourly else "%Y-%m-%d")
