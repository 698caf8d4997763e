"""What is checked of a ledger in SQL that every store takes, in one snapshot."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from audit_svc.errors import StoreRefused
from audit_svc.ledger.clock import MAX_JUMP_MS, wall_ms
from audit_svc.ledger.columns import MAX_TIME_MS
from audit_svc.ledger.migrations import Migration
from audit_svc.ledger.numbers import stream_of
from audit_svc.sql.care.holds import TABLES, is_held
from audit_svc.sql.care.prune import OLD_CALLS, OLD_REQUESTS
from audit_svc.sql.care.shared_ids import shared_ids
from audit_svc.sql.database import Connection

State = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. A note is a fact that an operator should know, but not damage."""

    check: str
    state: State
    detail: str


def schema_finding(pending: Callable[[], Iterable[Migration]]) -> Finding:
    """Whether the schema is as it must be, without which no more is checked. pending: see the migrate of each store."""
    try:
        names = ", ".join(migration.label for migration in pending())
    except StoreRefused as refusal:
        return Finding("schema", "wrong", str(refusal))
    if names:
        return Finding("schema", "wrong", f"older than this audit-svc, not applied: {names}: run migrate up")
    return Finding("schema", "ok", "as its migrations make it")


def _labels(connection: Connection) -> Iterator[Finding]:
    orphans = (
        "SELECT count(*) FROM session_labels l WHERE NOT EXISTS "
        "(SELECT 1 FROM sessions s WHERE s.id = l.session_id AND s.recorded_by = l.recorded_by)"
    )
    if count := connection.execute(orphans).fetchall()[0][0]:
        yield Finding("labels", "wrong", f"{count} labels of sessions that are not there")


def _producers(connection: Connection) -> Iterator[Finding]:
    gaps = connection.execute(
        "SELECT producer_id, g.recorded_by, first_sequence, last_sequence, highest_sequence, "
        "max(last_sequence) OVER (PARTITION BY producer_id, g.recorded_by ORDER BY first_sequence "
        "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) FROM producer_gaps g "
        "LEFT JOIN producers p ON id = producer_id AND p.recorded_by = g.recorded_by "
        "ORDER BY producer_id, g.recorded_by, first_sequence"
    )
    for producer_id, name, first, last, highest, before in gaps:
        producer = _by(producer_id, name)
        if highest is None or not (before or 0) < first <= last < highest:
            yield Finding("producers", "wrong", f"{producer}: the gap {first} to {last} cannot be")
        else:
            which = "numbers" if stream_of(producer_id) else "records"
            yield Finding("producers", "note", f"{producer}: {which} {first} to {last} never came ({last - first + 1})")
    refusals = connection.execute(
        "SELECT producer_id, recorded_by, code, sum(rows), min(first_sequence), max(last_sequence), max(minute) "
        "FROM refusals GROUP BY producer_id, recorded_by, code ORDER BY producer_id, recorded_by, code"
    )
    for producer_id, name, code, rows, first, last, minute in refusals:
        which = f"records {first} to {last}: " if last else ""
        told = f"{which}rows refused as {code}: {rows}, the last at {_time(minute)}; its dead letters have them"
        yield Finding("producers", "note", f"{_by(producer_id or 'without numbers', name)}: {told}")


def _identities(connection: Connection) -> Iterator[Finding]:
    for conflict in shared_ids(connection):
        yield Finding("ids", "note", f"{conflict.what} {conflict.id!r} was recorded by {conflict.names}")


def _by(producer_id: str, recorded_by: str) -> str:
    stream = stream_of(producer_id)
    named = f"session {stream[0]}, {stream[1]}" if stream else producer_id
    return f"{named} of {recorded_by}" if recorded_by else named


def _pruned(connection: Connection) -> Iterator[Finding]:
    ((mark, under_way),) = connection.execute(
        "SELECT max(pruned_before), count(*) FILTER (WHERE finished_at IS NULL) FROM pruned"
    )
    if mark is None:
        return
    if mark > wall_ms():
        yield Finding(
            "pruned",
            "wrong",
            f"it is pruned to {_time(mark)}, which is in the future: a clock was wrong. Run prune --reset-mark",
        )
        return
    if under_way:
        yield Finding(
            "pruned", "note", "a prune has not ended: the service goes on with it, and so does `audit-svc prune`"
        )
        return
    for kind, old in (("tool_call", OLD_CALLS), ("model_request", OLD_REQUESTS)):
        hold, table = is_held(connection, kind), TABLES[kind]
        kinds: tuple[tuple[str, State, str], ...] = (
            (f"NOT {hold.sql}", "wrong", ""),
            (hold.sql, "note", ": a legal hold keeps them"),
        )
        for sql, state, why in kinds:
            ((count,),) = connection.execute(
                f"SELECT count(*) FROM {table} WHERE {old} AND {sql}",  # noqa: S608 - texts of ours
                (mark, *hold.arguments),
            )
            if count:
                yield Finding("pruned", state, f"{count} rows of {table} are older than what was pruned{why}")


def _clock(connection: Connection) -> Iterator[Finding]:
    for (seen_ms,) in connection.execute("SELECT seen_at FROM ledger_clock"):
        ahead = wall_ms() - seen_ms
        if abs(ahead) > MAX_JUMP_MS:
            told = f"the clock shows {_time(wall_ms())}, and the ledger last saw {_time(seen_ms)}"
            why = "it was not served in between, or the clock jumped" if ahead > 0 else "a clock is or was wrong"
            yield Finding("clock", "note", f"{told}: {why}")
    for table, what in (("tool_call_log", "tool calls"), ("cost_log", "model requests"), ("sessions", "sessions")):
        ((count, earliest, latest),) = connection.execute(
            f"SELECT count(*), min(created_at), max(created_at) FROM {table} WHERE clock_suspect IS NOT NULL"  # noqa: S608 - names of ours
        )
        if count:
            between = f"between {_time(earliest)} and {_time(latest)}"
            yield Finding("clock", "note", f"{count} {what} say that they began {between}, when a clock was wrong")


def _time(at_ms: int) -> str:
    """Bounded as the times of rows are, though a mark may be any number."""
    return datetime.fromtimestamp(min(at_ms, MAX_TIME_MS) / 1000, UTC).isoformat(timespec="seconds")


def comparable_from(connection: Connection) -> int:
    """From when on rollups say what the rows do, in milliseconds.

    What is still there of rows from before the mark counts as gone, and its hours may be.
    """
    ((left,),) = connection.execute(
        "SELECT max(pruned_before) FROM pruned WHERE finished_at IS NULL "
        "OR EXISTS (SELECT 1 FROM tool_call_log WHERE created_at < pruned_before)"
        "OR EXISTS (SELECT 1 FROM cost_log WHERE created_at < pruned_before)"
    )
    return int(left or 0)


CHECKS: tuple[tuple[str, Callable[[Connection], Iterator[Finding]]], ...] = (
    ("labels", _labels),
    ("producers", _producers),
    ("ids", _identities),
    ("pruned", _pruned),
    ("clock", _clock),
)
NAMES = ("wal", "integrity", "schema", *(name for name, _ in CHECKS), "rollups", "texts")
"""What is checked, in this order, of every store."""


def shared_findings(connection: Connection) -> Iterator[Finding]:
    """What CHECKS find."""
    for name, look in CHECKS:
        yield from list(look(connection)) or [Finding(name, "ok", "")]


def rollup_findings(off: dict[str, int]) -> list[Finding]:
    """What is said of rollups that are off by so many rows."""
    return [
        Finding("rollups", "wrong", f"{count} rows of {table} are not what the rows say: run rebuild-rollups")
        for table, count in off.items()
        if count
    ] or [Finding("rollups", "ok", "")]
