"""Checks a ledger in one snapshot, beside a running service too."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import apsw

from audit_svc.errors import StoreRefused
from audit_svc.ledger.batch import stream_of
from audit_svc.ledger.clock import MAX_JUMP_MS, wall_ms
from audit_svc.ledger.columns import MAX_TIME_MS
from audit_svc.sql.care.holds import TABLES, is_held
from audit_svc.sql.care.prune import OLD_CALLS, OLD_REQUESTS
from audit_svc.sqlite.care.backup import OnProgress, call_while_it_runs
from audit_svc.sqlite.care.shared_ids import shared_ids
from audit_svc.sqlite.care.wal import unread
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.at_rest import FoundDatabase
from audit_svc.sqlite.open.files import reading
from audit_svc.sqlite.text.text_index import text_index_differences
from audit_svc.sqlite.usage.recount import rollup_differences
from audit_svc.sqlite.usage.session_sums import session_differences

State = Literal["ok", "note", "wrong"]

MAX_PROBLEMS = 20
"""How many problems of one kind are reported."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. A note is a fact that an operator should know, but not damage."""

    check: str
    state: State
    detail: str


def check(path: Path, on_progress: OnProgress) -> Iterator[Finding]:
    """Checks the ledger or the backup at path and gives each finding as it is made.

    Raises:
        StoreRefused: there is no ledger that could be checked.
    """
    found = FoundDatabase(path)
    with reading(path, exact_schema=False) as connection:
        call_while_it_runs(connection, on_progress)
        yield _wal(found, on_progress)
        connection.execute("BEGIN")
        yield from _integrity(connection)
        try:
            waiting = migrate.pending(connection, migrate.load_migrations())
        except StoreRefused as refusal:
            yield Finding("schema", "wrong", str(refusal))
            return
        if waiting:
            names = ", ".join(migration.label for migration in waiting)
            yield Finding("schema", "wrong", f"older than this audit-svc, not applied: {names}: run migrate up")
            return
        yield Finding("schema", "ok", "as its migrations make it")
        for name, look in _CHECKS:
            findings = list(look(connection, on_progress))
            yield from findings or [Finding(name, "ok", "")]


def _wal(found: FoundDatabase, on_progress: OnProgress) -> Finding:
    if found.unseen:
        return Finding("wal", "note", found.unseen)
    if found.state != "with a WAL":
        return Finding("wal", "ok", "")
    left = unread(found.beside("-wal"), on_progress)
    if left.is_header:
        return Finding("wal", "wrong", "the header of the -wal is damaged, so nothing of it is read")
    if not left.commits:  # a transaction that was rolled back leaves pages too
        return Finding("wal", "ok", "")
    told = f"{left.pages} pages of the -wal ({left.commits} commits) are damaged or behind one that is, and not read"
    # Each commit is synced, so that a power cut leaves the last alone unfinished, of which nobody was told.
    return Finding("wal", "wrong" if left.commits > 1 else "note", told)


def _integrity(connection: apsw.Connection) -> Iterator[Finding]:
    problems = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({MAX_PROBLEMS})")]
    if problems == ["ok"]:
        yield Finding("integrity", "ok", "")
        return
    for problem in problems:
        yield Finding("integrity", "wrong", " ".join(problem.split()))


def _labels(connection: apsw.Connection, on_progress: OnProgress) -> Iterator[Finding]:
    orphans = (
        "SELECT count(*) FROM session_labels "
        "WHERE (session_id, recorded_by) NOT IN (SELECT id, recorded_by FROM sessions)"
    )
    if count := connection.execute(orphans).fetchall()[0][0]:
        yield Finding("labels", "wrong", f"{count} labels of sessions that are not there")


def _producers(connection: apsw.Connection, on_progress: OnProgress) -> Iterator[Finding]:
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


def _identities(connection: apsw.Connection, on_progress: OnProgress) -> Iterator[Finding]:
    for conflict in shared_ids(connection):
        yield Finding("ids", "note", f"{conflict.what} {conflict.id!r} was recorded by {conflict.names}")


def _by(producer_id: str, recorded_by: str) -> str:
    stream = stream_of(producer_id)
    named = f"session {stream[0]}, {stream[1]}" if stream else producer_id
    return f"{named} of {recorded_by}" if recorded_by else named


def _pruned(connection: apsw.Connection, on_progress: OnProgress) -> Iterator[Finding]:
    ((mark, under_way),) = connection.execute("SELECT max(pruned_before), sum(finished_at IS NULL) FROM pruned")
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


def _clock(connection: apsw.Connection, on_progress: OnProgress) -> Iterator[Finding]:
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


def rollups_off(connection: apsw.Connection) -> dict[str, int]:
    """How many rows of each rollup are not what the rows say. No transaction is open."""
    # What is still there of rows from before the mark counts as gone, and its hours may be.
    ((left,),) = connection.execute(
        "SELECT max(pruned_before) FROM pruned WHERE finished_at IS NULL "
        "OR EXISTS (SELECT 1 FROM tool_call_log WHERE created_at < pruned_before)"
        "OR EXISTS (SELECT 1 FROM cost_log WHERE created_at < pruned_before)"
    )
    from_ms = int(left or 0)
    # It makes temporary tables, which a connection that answers queries cannot: in memory, since no folder may be
    # one that can be written.
    connection.pragma("query_only", False)
    connection.pragma("temp_store", "memory")
    try:
        differences = rollup_differences(connection, from_ms)
        return {**differences, "session_usage": session_differences(connection)}
    finally:
        connection.pragma("query_only", True)


def _rollups(connection: apsw.Connection, on_progress: OnProgress) -> Iterator[Finding]:
    connection.execute("COMMIT")  # they are looked at in a transaction of their own
    off = rollups_off(connection)
    connection.execute("BEGIN")
    for table, count in off.items():
        if count:
            yield Finding("rollups", "wrong", f"{count} rows of {table} are not what the rows say: run rebuild-rollups")


def texts_off(connection: apsw.Connection, on_progress: OnProgress) -> int:
    """How many parts of the index of texts lack something that their rows have."""
    wrong = 0
    for lacks in text_index_differences(connection):
        on_progress(0, 0)
        wrong += lacks
    return wrong


def _texts(connection: apsw.Connection, on_progress: OnProgress) -> Iterator[Finding]:
    if wrong := texts_off(connection, on_progress):
        yield Finding("texts", "wrong", f"{wrong} parts of their index lack what their rows have: run rebuild-texts")


_CHECKS: tuple[tuple[str, Callable[[apsw.Connection, OnProgress], Iterator[Finding]]], ...] = (
    ("labels", _labels),
    ("producers", _producers),
    ("ids", _identities),
    ("pruned", _pruned),
    ("clock", _clock),
    ("rollups", _rollups),
    ("texts", _texts),
)

NAMES = ("wal", "integrity", "schema", *(name for name, _ in _CHECKS))
"""What is checked, in this order."""
