"""Erasing the texts of rows, in batches short enough not to delay ingest.

In the transaction that erases a row's texts, the index of texts forgets them and an entry says whose they were. Their
hashes in the row's leaf stay, without the salt from which, with the text, they were made: see docs/seal-format.md.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from audit_svc.errors import AmbiguousId, Held, NotFound
from audit_svc.ledger.clock import SeenClock
from audit_svc.ledger.erasing import ErasedCounts, ErasingProgress, Erasure
from audit_svc.seal.leaf import BY_NAME, HASHED, Kind, sealed_text
from audit_svc.sql.care.holds import held, is_held, list_holds
from audit_svc.sql.read import listing
from audit_svc.sql.read.listing import Condition
from audit_svc.sql.writing import Connection

BATCH_ROWS = 100
"""Rows that a transaction erases: some 20 ms of the writer's time."""
BATCH_WALKS = 100
"""Sessions that a transaction looks at."""

_COUNTED = {"tool_call": "tool_calls", "model_request": "model_requests", "control": "controls"}
_SEEN = tuple(_COUNTED[kind.name] for kind in HASHED)
"""Columns of the table erasing: up to which positions rows were there when it was looked last."""
_CALLS, _REQUESTS = BY_NAME["tool_call"], BY_NAME["model_request"]


class Walk(NamedTuple):
    """Rows of one kind along an index, in the order of (created_at, position)."""

    kind: Kind
    along: str
    """INDEXED BY one, or NOT INDEXED."""
    conditions: list[Condition]


def count(connection: Connection, wanted: Erasure) -> ErasingProgress:
    """What erasing would erase now. Raises NotFound, AmbiguousId, Held."""
    refuse_held(connection, wanted)
    counts = ErasedCounts()
    for walk in walks(connection, wanted):
        sql, arguments = listing.select(f"SELECT count(*) FROM {walk.kind.table}", walk.conditions)  # noqa: S608 - names of ours
        ((rows,),) = connection.execute(sql, arguments)
        _add(counts, walk.kind, int(rows))
    return ErasingProgress(counts, done=True)


def refuse_held(connection: Connection, wanted: Erasure) -> None:
    """Raises Held where a legal hold holds one of the rows; NotFound, AmbiguousId."""
    if wanted.before_ms:
        return
    for walk in walks(connection, wanted):
        condition = is_held(connection, walk.kind.name)
        sql, arguments = listing.select(f"SELECT position FROM {walk.kind.table}", [*walk.conditions, condition])  # noqa: S608 - names of ours
        for (position,) in connection.execute(f"{sql} LIMIT 1", arguments):
            raise Held(held(connection, walk.kind.name, [int(position)])[int(position)])


@dataclass
class Erase:
    """One erasure. Its steps are run one by one, each in a transaction, until one says that it is done."""

    wanted: Erasure
    clock: SeenClock
    _walks: list[Walk] | None = None
    """Those that are left, the next one last."""
    _after: tuple[int, int] = (-1, -1)
    _last: Sequence[int] = ()
    _erased: ErasedCounts = field(default_factory=ErasedCounts)

    def step(self, connection: Connection) -> ErasingProgress:
        """Does the next part, in the transaction that is open."""
        if self._walks is None:
            if self.wanted.before_ms:
                self.clock.refuse_jump()
            self._walks = list(walks(connection, self.wanted))[::-1]
            self._last = [_last_position(connection, kind) for kind in HASHED]
        if self._walks:
            self._go_on(connection, self._walks)
            return ErasingProgress(replace(self._erased))
        done = self._is_gone(connection)
        if done:
            self._note_age(connection)
        return ErasingProgress(replace(self._erased), done=done)

    def _note_age(self, connection: Connection) -> None:
        """Notes how far it has come. What a hold keeps is looked at again each time, since who lifts it, or a session's
        label, frees it at any time.
        """
        if self.wanted.before_ms and not list_holds(connection, with_lifted=False):
            seen = ", ".join(f"{name} = ?" for name in _SEEN)
            connection.execute(
                f"UPDATE erasing SET erased_before = ?1, {seen} WHERE erased_before < ?1",  # noqa: S608 - names of ours
                (self.wanted.before_ms, *self._last),
            )

    def _go_on(self, connection: Connection, walks_left: list[Walk]) -> None:
        room, looks = BATCH_ROWS, BATCH_WALKS
        while walks_left and room and looks:
            walk = walks_left[-1]
            found = _next(connection, walk, self._after, room)
            kept = held(connection, walk.kind.name, [row[1] for row in found])
            if kept and not self.wanted.before_ms:
                raise Held(next(iter(kept.values())))
            rows = [row for row in found if row[1] not in kept]
            if rows:
                self._erase(connection, walk.kind, rows)
            _add(self._erased, walk.kind, len(rows))
            if len(found) == room:
                self._after = found[-1][:2]
                return
            walks_left.pop()
            self._after = (-1, -1)
            room, looks = room - len(found), looks - 1

    def _erase(self, connection: Connection, kind: Kind, rows: list[Any]) -> None:
        """Erases the texts of rows, of which _next() tells, and puts on the record whose they were."""
        raise NotImplementedError

    def _is_gone(self, connection: Connection) -> bool:
        """Goes on removing what is left of erased texts; whether nothing is."""
        return True


def kept_of(kind: Kind, row: Sequence[Any]) -> str:
    """What an erased row has in place of its texts: their hashes in its leaf. row: as _next() tells of it."""
    _, _, salt, *texts = row
    hashes = {name: sealed_text(salt, text) for name, text in zip(kind.hashed, texts, strict=True) if text is not None}
    return json.dumps(hashes)


def _last_position(connection: Connection, kind: Kind) -> int:
    ((last,),) = connection.execute(f"SELECT max(position) FROM {kind.table}")  # noqa: S608 - a name of ours
    return int(last or 0)


def walks(connection: Connection, wanted: Erasure) -> Iterator[Walk]:
    """Where the rows are. Raises NotFound, AmbiguousId."""
    whose = [] if wanted.recorded_by is None else [Condition("recorded_by = ?", (wanted.recorded_by,))]
    if wanted.row_id:
        conditions = [Condition("id = ?", (wanted.row_id,)), *whose]
        _refuse_unclear(connection, "row", wanted.row_id, conditions, [kind.table for kind in HASHED])
        for kind in HASHED:
            yield _walk(kind, f"INDEXED BY sqlite_autoindex_{kind.table}_1", conditions)
    elif wanted.session_id:
        conditions = [Condition("session_id = ?", (wanted.session_id,)), *whose]
        of_session = [Condition("id = ?", (wanted.session_id,)), *whose]
        tables = [_CALLS.table, _REQUESTS.table]
        _refuse_unclear(connection, "session", wanted.session_id, conditions, tables, of_session)
        yield from _of_session(conditions)
    elif wanted.labels:
        for session, name in _labelled(connection, wanted):
            yield from _of_session([Condition("session_id = ?", (session,)), Condition("recorded_by = ?", (name,))])
    elif wanted.before_ms:
        yield from _older(connection, wanted.before_ms)


def _older(connection: Connection, before_ms: int) -> Iterator[Walk]:
    """The rows that have become old since it was looked last, and the old ones that have come since."""
    ((mark, *seen),) = connection.execute(f"SELECT erased_before, {', '.join(_SEEN)} FROM erasing")  # noqa: S608 - names of ours
    if before_ms <= int(mark):
        return
    for kind, last in zip(HASHED, seen, strict=True):
        has_suspects = kind is _CALLS or kind is _REQUESTS
        # as a prune takes them: a row with a suspect time stays as long after it came
        of_age = [Condition("coalesce(clock_suspect, 0) < ?", (before_ms,))] if has_suspects else []
        became = [Condition("created_at >= ?", (mark,)), Condition("created_at < ?", (before_ms,))]
        yield _walk(kind, f"INDEXED BY idx_{kind.table}_created", [*became, *of_age])
        came = [Condition("position > ?", (last,)), Condition("created_at < ?", (mark,))]
        yield _walk(kind, "NOT INDEXED", [*came, *of_age])
        if has_suspects:
            suspect = [Condition("clock_suspect IS NOT NULL"), Condition("created_at < ?", (before_ms,)), *of_age]
            yield _walk(kind, f"INDEXED BY idx_{kind.table}_suspect", suspect)


def _labelled(connection: Connection, wanted: Erasure) -> list[tuple[str, str]]:
    first, *others = wanted.labels
    conditions = [
        Condition("key = ? AND value = ?", first),
        *listing.has_labels(others, "s.session_id", "s.recorded_by"),
        *([] if wanted.recorded_by is None else [Condition("recorded_by = ?", (wanted.recorded_by,))]),
    ]
    sql, arguments = listing.select("SELECT session_id, recorded_by FROM session_labels s", conditions)
    found: list[Any] = connection.execute(sql, arguments).fetchall()
    return found


def _of_session(conditions: list[Condition]) -> Iterator[Walk]:
    for kind in (_CALLS, _REQUESTS):
        yield _walk(kind, f"INDEXED BY idx_{kind.table}_session", conditions)


def _walk(kind: Kind, index: str, conditions: list[Condition]) -> Walk:
    """Along an index, those rows that still have a text."""
    has_text = Condition(f"{kind.hashed[0]} IS NOT NULL" if len(kind.hashed) == 1 else "args_summary IS NOT NULL")
    return Walk(kind, index, [*conditions, Condition("erased IS NULL"), has_text])


def _refuse_unclear(
    connection: Connection,
    what: str,
    id_: str,
    conditions: list[Condition],
    tables: list[str],
    of_session: list[Condition] | None = None,
) -> None:
    parts = [listing.select(f"SELECT recorded_by FROM {table}", conditions) for table in tables]  # noqa: S608 - names of ours
    if of_session:
        parts.append(listing.select("SELECT recorded_by FROM sessions", of_session))
    sql = " UNION ".join(part.sql for part in parts)
    names = sorted(str(name) for (name,) in connection.execute(sql, [x for part in parts for x in part.arguments]))
    if not names:
        raise NotFound(f"the ledger has no {what} with this id", what, id_)
    if len(names) > 1:
        raise AmbiguousId(f"several callers recorded a {what} with this id", what, id_, names)


def _next(connection: Connection, walk: Walk, after: tuple[int, int], size: int) -> list[Any]:
    """The next rows of a walk: created_at, position, salt, and its texts."""
    names = ", ".join(("created_at", "position", "salt", *walk.kind.hashed))
    # a comparison of two would not be looked up in the index
    beyond = [Condition("created_at >= ?", after[:1]), Condition("(created_at, position) > (?, ?)", after)]
    statement = listing.select(
        f"SELECT {names} FROM {walk.kind.table} {walk.along}",  # noqa: S608 - names of ours
        [*walk.conditions, *beyond],
    )
    sql = f"{statement.sql} ORDER BY created_at, position LIMIT {size}"
    found: list[Any] = connection.execute(sql, statement.arguments).fetchall()
    return found


def _add(counts: ErasedCounts, kind: Kind, rows: int) -> None:
    name = _COUNTED[kind.name]
    setattr(counts, name, getattr(counts, name) + rows)
