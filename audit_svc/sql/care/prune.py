"""Pruning: removes what began before a whole hour, in batches short enough not to delay ingest.

The mark comes first: from then on such rows are refused, and what is still there of them counts as gone. So a process
that dies in the middle leaves nothing wrong behind, and the next prune goes on where it ended.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from audit_svc.errors import ClockJumped
from audit_svc.ledger.clock import SeenClock, wall_ms
from audit_svc.ledger.pruning import Progress, PrunedCounts
from audit_svc.ledger.steps import HOUR_MS
from audit_svc.ledger.usage import MAX_SUMMED
from audit_svc.sql.care.holds import NEVER, held, is_held
from audit_svc.sql.marks import pruned_before
from audit_svc.sql.read.listing import Condition
from audit_svc.sql.usage.named_usage import forget_named
from audit_svc.sql.write.rollups import drop_rollups
from audit_svc.sql.writing import Connection, larger, smaller
from service_kit.bounds import saturated

BATCH_ROWS = 1000
"""Rows that a transaction removes: some 10 ms of the writer's time."""
USAGE_MS = 24 * HOUR_MS
"""The hours whose rollups a transaction removes."""

# The next row gets the number above the highest. Were that row removed, a number would come twice, and who follows the
# rows by their numbers would miss some, or take one for another that was sealed: it stays until another has come.
_OLD = "created_at < ?1 AND coalesce(clock_suspect, 0) < ?1 AND position < (SELECT max(position) FROM {table})"
OLD_CALLS, OLD_REQUESTS = (_OLD.format(table=table) for table in ("tool_call_log", "cost_log"))
"""What there is to remove of a table before a time. A row with a suspect time stays as long after it came."""

# As the rollups count them: no row fills a sum alone.
_COUNTED = [smaller(name, str(MAX_SUMMED)) for name in ("input_tokens", "output_tokens", "coalesce(cost_micros, 0)")]

_LOOKED_AT = (
    "SELECT created_at, position FROM {table} WHERE {old} AND created_at >= ?2 AND (created_at, position) > (?2, ?3) "
    "ORDER BY created_at, position LIMIT ?4"
)
_CALLS_LOOKED_AT = _LOOKED_AT.format(table="tool_call_log", old=OLD_CALLS)
_REQUESTS_LOOKED_AT = _LOOKED_AT.format(table="cost_log", old=OLD_REQUESTS)
_THESE = "position IN (SELECT value FROM json_each(?))"
_CALLS = f"SELECT created_at, CASE WHEN error IS NULL THEN 0 ELSE 1 END FROM tool_call_log WHERE {_THESE}"  # noqa: S608 - texts of ours
_REQUESTS = f"SELECT created_at, {', '.join(_COUNTED)} FROM cost_log WHERE {_THESE}"  # noqa: S608 - texts of ours
_QUERIES = (
    "SELECT id FROM query_log WHERE created_at < ? AND id < (SELECT max(id) FROM query_log) ORDER BY created_at LIMIT ?"
)
_GAPS = (
    "SELECT position FROM gap_log WHERE coalesce(recorded_at, 0) < ? "
    "AND position < (SELECT max(position) FROM gap_log) ORDER BY position LIMIT ?"
)
_REVISIONS = (
    "SELECT position FROM session_log WHERE id = ? AND recorded_by = ? "
    "AND position < (SELECT max(position) FROM session_log)"
)
_SESSIONS_LOOKED_AT = (
    "SELECT created_at, position FROM sessions WHERE created_at < ? AND (created_at, position) > (?, ?) "
    "ORDER BY created_at, position LIMIT ?"
)
_ITS_ROWS = "session_id = sessions.id AND recorded_by = sessions.recorded_by"
_IS_OVER = (
    f"{larger('updated_at', 'coalesce(clock_suspect, 0)')} < ? "  # noqa: S608 - texts of ours
    f"AND NOT EXISTS (SELECT 1 FROM tool_call_log WHERE {_ITS_ROWS}) "
    f"AND NOT EXISTS (SELECT 1 FROM cost_log WHERE {_ITS_ROWS})"
)
_SESSIONS = f"sessions WHERE (created_at, position) > (?, ?) AND (created_at, position) <= (?, ?) AND {_IS_OVER} AND "
"""Of those looked at, the ones that go; then what else must hold of them."""


def unfinished(connection: Connection) -> int | None:
    """The time of an unfinished prune, in milliseconds since 1970-01-01 UTC; None if there is none."""
    ((mark,),) = connection.execute("SELECT max(pruned_before) FROM pruned WHERE finished_at IS NULL")
    return None if mark is None else int(mark)


def reset_mark(connection: Connection, before_ms: int, by: str) -> Progress:
    """Sets the mark back to before_ms where it is later, in the open transaction; a prune to there has ended.

    What was removed stays removed. Rows that are sent from now on are taken or refused by the mark as it is then.
    """
    connection.execute(
        "UPDATE pruned SET pruned_before = ?1, finished_at = coalesce(finished_at, ?2) WHERE pruned_before > ?1",
        (before_ms, wall_ms()),
    )
    log_care(connection, by, {"created_before_ms": before_ms, "reset_mark": True})
    return Progress(pruned_before(connection), PrunedCounts(), done=True)


def log_care(connection: Connection, by: str, asked: Mapping[str, Any]) -> None:
    """Puts what an operator decided into the log of queries, in the transaction that does it."""
    connection.execute(
        "INSERT INTO query_log (caller, method, filters, rows, duration_ms, status, created_at) "
        "VALUES (?, 'Prune', ?, 0, 0, 'OK', ?)",
        (by[:128], json.dumps(asked), wall_ms()),
    )


def count(connection: Connection, before_ms: int, whole_sum: Callable[[str], str]) -> Progress:
    """What a prune would remove now. whole_sum: as Dialect.whole_sum."""
    sums = ", ".join(f"coalesce({whole_sum(value)}, 0)" for value in _COUNTED)
    of_calls, of_requests, of_sessions = (
        is_held(connection, kind) for kind in ("tool_call", "model_request", "session")
    )
    kept = 0

    def counted(what: str, table: str, old: str, hold: Condition, arguments: Sequence[Any] = ()) -> list[Any]:
        """Of the rows that are old and not held; adds those that are held to kept."""
        nonlocal kept
        where = f"FROM {table} WHERE {old}"
        said = (before_ms, *arguments, *hold.arguments)
        counts: list[Any]
        ((*counts,),) = connection.execute(f"SELECT {what} {where} AND NOT {hold.sql}", said)
        if hold is not NEVER:
            ((more,),) = connection.execute(f"SELECT count(*) {where} AND {hold.sql}", said)
            kept += int(more)
        return counts

    calls = counted("count(*), count(error)", "tool_call_log", OLD_CALLS, of_calls)
    requests = counted(f"count(*), {sums}", "cost_log", OLD_REQUESTS, of_requests)
    of_call, of_request = (
        f"SELECT 1 FROM {table} WHERE {_ITS_ROWS} AND ({larger('created_at', 'coalesce(clock_suspect, 0)')} >= ?1 "  # noqa: S608 - texts of ours
        f"OR position = (SELECT max(position) FROM {table}) OR {hold.sql})"
        for table, hold in (("tool_call_log", of_calls), ("cost_log", of_requests))
    )
    over = (
        f"created_at < ?1 AND {larger('updated_at', 'coalesce(clock_suspect, 0)')} < ?1 "
        f"AND NOT EXISTS ({of_call}) AND NOT EXISTS ({of_request})"
    )
    sessions = counted("count(*)", "sessions", over, of_sessions, (*of_calls.arguments, *of_requests.arguments))
    return Progress(before_ms, PrunedCounts(*map(int, [*calls, *requests, *sessions])), done=True, held=kept)


@dataclass
class Prune:
    """One prune. Its steps are run one by one, each in a transaction, until one says that it is done.

    After a step that failed, another Prune goes on.
    """

    before_ms: int
    """A whole hour."""
    by: str
    """Who asked for it."""
    clock: SeenClock
    confirm_clock: bool = False
    """Whether an operator says that the clock is right."""
    _stage: int = 0
    _row: int = 0
    _seen: tuple[int, int] = (-1, -1)
    _removed: PrunedCounts = field(default_factory=PrunedCounts)
    _held: int = 0

    def step(self, connection: Connection) -> Progress:
        """Does the next part, in the transaction that is open."""
        stages = (
            self._mark,
            self._remove_calls,
            self._remove_texts,
            self._remove_requests,
            self._remove_sessions,
            self._remove_usage,
            self._remove_session_usage,
            self._remove_queries,
            self._finish,
            self._give_space_back,
        )
        self._stage += stages[self._stage](connection)
        return Progress(self.before_ms, replace(self._removed), done=self._stage == len(stages), held=self._held)

    def _mark(self, connection: Connection) -> bool:
        if self.confirm_clock:
            self.clock.confirm()
            log_care(connection, self.by, {"created_before_ms": self.before_ms, "confirm_clock": True})
        self.clock.refuse_jump()
        now_ms = self.clock.seen_ms
        begun = connection.execute("SELECT id, pruned_before FROM pruned WHERE finished_at IS NULL").fetchone()
        if begun is not None:
            self._row = begun[0]
            self.before_ms = max(self.before_ms, begun[1])
            if self.before_ms > now_ms:
                raise ClockJumped(
                    "a prune that has not ended goes to a time in the future, so a clock was wrong: set the mark back "
                    "with `audit-svc prune --before TIME --reset-mark`"
                )
            connection.execute("UPDATE pruned SET pruned_before = ? WHERE id = ?", (self.before_ms, self._row))
        elif self.before_ms > pruned_before(connection):
            ((self._row,),) = connection.execute(
                "INSERT INTO pruned (pruned_before, tool_calls, errors, model_requests, input_tokens, output_tokens, "
                "cost_micros, sessions, pruned_by, started_at) VALUES (?, 0, 0, 0, 0, 0, 0, 0, ?, ?) RETURNING id",
                (self.before_ms, self.by, now_ms),
            ).fetchall()
        else:
            # Only the call that had come last can be left of what was pruned already.
            ((self._row,),) = connection.execute("SELECT id FROM pruned ORDER BY pruned_before DESC LIMIT 1")
        return True

    def _remove_calls(self, connection: Connection) -> bool:
        positions, done = self._look(connection, "tool_call", _CALLS_LOOKED_AT)
        rows: list[Any] = connection.execute(_CALLS, (json.dumps(positions),)).fetchall()
        self._remove(connection, "tool_call", positions)
        self._note(connection, rows, PrunedCounts(tool_calls=len(rows), errors=sum(row[1] for row in rows)))
        return done

    def _remove_requests(self, connection: Connection) -> bool:
        positions, done = self._look(connection, "model_request", _REQUESTS_LOOKED_AT)
        rows: list[Any] = connection.execute(_REQUESTS, (json.dumps(positions),)).fetchall()
        self._remove(connection, "model_request", positions)
        tokens_and_cost = (sum(column) for column in list(zip(*rows, strict=True))[1:])
        self._note(connection, rows, PrunedCounts(0, 0, len(rows), *tokens_and_cost))
        return done

    def _look(self, connection: Connection, kind: str, looked_at: str) -> tuple[list[int], bool]:
        """The positions of the next old rows that no hold holds, and whether there are no further ones."""
        found: list[Any] = connection.execute(looked_at, (self.before_ms, *self._seen, BATCH_ROWS)).fetchall()
        kept = held(connection, kind, [position for _, position in found])
        self._held += len(kept)
        done = len(found) < BATCH_ROWS
        self._seen = (-1, -1) if done else found[-1]
        return [position for _, position in found if position not in kept], done

    def _remove_sessions(self, connection: Connection) -> bool:
        seen: list[Any] = connection.execute(_SESSIONS_LOOKED_AT, (self.before_ms, *self._seen, BATCH_ROWS)).fetchall()
        if seen:
            those = (*self._seen, *seen[-1], self.before_ms)
            sql, arguments = is_held(connection, "session")
            ((kept,),) = connection.execute(f"SELECT count(*) FROM {_SESSIONS} {sql}", (*those, *arguments))  # noqa: S608 - texts of ours
            self._held += int(kept)
            removed = connection.execute(
                f"DELETE FROM {_SESSIONS} NOT {sql} RETURNING id, recorded_by",  # noqa: S608 - texts of ours
                (*those, *arguments),
            ).fetchall()
            for table in ("session_labels", "session_traits"):
                forget = f"DELETE FROM {table} WHERE session_id = ? AND recorded_by = ?"  # noqa: S608 - names of ours
                connection.executemany(forget, removed)
            revisions: list[Any] = [
                row[0] for session in removed for row in connection.execute(_REVISIONS, session).fetchall()
            ]
            self._remove(connection, "session", revisions)
            self._note(connection, [], PrunedCounts(sessions=len(removed)))
            self._seen = seen[-1]
        return len(seen) < BATCH_ROWS

    def _remove_usage(self, connection: Connection) -> bool:
        """After the rows, so that rollups that are rebuilt in the middle of a prune are right at its end."""
        ((earliest,),) = connection.execute(
            "SELECT min(begins_at) FROM (SELECT min(begins_at) AS begins_at FROM tool_call_usage_hourly "
            "UNION ALL SELECT min(begins_at) FROM request_usage_hourly) AS hours"
        )
        until_ms = self.before_ms if earliest is None else min(self.before_ms, int(earliest) + USAGE_MS)
        drop_rollups(connection, until_ms)
        return until_ms == self.before_ms

    def _remove_session_usage(self, connection: Connection) -> bool:
        return not (self._forget_sessions(connection) or forget_named(connection, self.before_ms, BATCH_ROWS))

    def _remove_queries(self, connection: Connection) -> bool:
        """The log of queries and the refusals are kept as long as the rows."""
        connection.execute("DELETE FROM refusals WHERE minute < ?", (self.before_ms,))
        done = True
        for kind, looked_at in (("query", _QUERIES), ("gap", _GAPS)):
            old = [int(row[0]) for row in connection.execute(looked_at, (self.before_ms, BATCH_ROWS)).fetchall()]
            self._remove(connection, kind, old)
            done &= len(old) < BATCH_ROWS
        return done

    def _finish(self, connection: Connection) -> bool:
        now_ms = wall_ms()
        connection.execute("UPDATE pruned SET finished_at = ? WHERE id = ?", (now_ms, self._row))
        return True

    def _note(self, connection: Connection, rows: Sequence[tuple[Any, ...]], counts: PrunedCounts) -> None:
        """Adds counts to the summary, in the transaction that removed rows. The first of a row is when it began."""
        names = [entry.name for entry in fields(PrunedCounts)]
        for name in names:
            setattr(self._removed, name, saturated(getattr(self._removed, name) + getattr(counts, name)))
        ((*sums, earliest),) = connection.execute(
            f"SELECT {', '.join(names)}, earliest FROM pruned WHERE id = ?",  # noqa: S608 - names of ours
            (self._row,),
        ).fetchall()
        sums = [saturated(total + getattr(counts, name)) for name, total in zip(names, sums, strict=True)]
        earliest = min([row[0] for row in rows] + ([] if earliest is None else [earliest]), default=None)
        connection.execute(
            f"UPDATE pruned SET {', '.join(f'{name} = ?' for name in names)}, earliest = ? WHERE id = ?",  # noqa: S608 - names of ours
            (*sums, earliest, self._row),
        )

    def _remove(self, connection: Connection, kind: str, positions: Sequence[int]) -> None:
        """Removes rows of a log, and puts on the record what goes, in the transaction that removes it."""
        raise NotImplementedError

    def _remove_texts(self, connection: Connection) -> bool:
        """Has an index of texts forget what is before the time; whether it is done."""
        return True

    def _forget_sessions(self, connection: Connection) -> bool:
        """Forgets some sums of sessions that ended before the time; whether there may be more."""
        raise NotImplementedError

    def _give_space_back(self, connection: Connection) -> bool:
        """Gives the system some of the space that became free; whether it is done."""
        return True
