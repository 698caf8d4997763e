"""Compares the sums under names, and the traits of sessions, with the rows."""

from typing import Any

from audit_svc.ledger import histogram
from audit_svc.ledger.groups import LABEL
from audit_svc.ledger.steps import DAY_MS
from audit_svc.sql.database import Dialect
from audit_svc.sql.marks import pruned_before
from audit_svc.sql.read.listing import Condition
from audit_svc.sql.read.session_traits import NAMES
from audit_svc.sql.usage.named_usage import KEPT, LABELLED, Key, is_relabelling, named_sums
from audit_svc.sql.usage.session_usage import summed_of
from audit_svc.sql.usage.usage_tables import CALLS, REQUESTS, Kind, usage_tables
from audit_svc.sql.writing import Connection

_COLUMNS = {"tool_calls": (*CALLS, "durations"), "model_requests": REQUESTS}


def named_differences(connection: Connection, dialect: Dialect) -> int:
    """How many sums are not what the rows say that they have, a day at a time."""
    wrong, mark = set[Key](), pruned_before(connection)
    skips_labels = is_relabelling(connection)
    for kind in usage_tables(dialect).kinds:
        day = _next_day(connection, kind, mark - mark % DAY_MS)
        while day is not None:
            said, kept = _said(connection, kind, day, mark), _kept(connection, kind, day, mark)
            keys = {key for key in said | kept if not (skips_labels and key[0].startswith((LABEL, LABELLED)))}
            nothing = [0] * len(_COLUMNS[kind.summed])
            wrong |= {key for key in keys if said.get(key, nothing) != kept.get(key, nothing)}
            day = _next_day(connection, kind, day + DAY_MS)
    return len(wrong)


def trait_differences(connection: Connection, dialect: Dialect) -> int:
    """How many sessions lack something that their rows say."""
    lacking = 0
    for kind in usage_tables(dialect).kinds:
        last = summed_of(connection)[kind.summed]
        for name in NAMES[kind.summed]:
            ((count,),) = connection.execute(
                f"SELECT count(*) FROM (SELECT session_id, recorded_by, {name} FROM {kind.rows.name} "  # noqa: S608 - names of ours
                f"WHERE position <= ? AND {name} <> '' EXCEPT "
                "SELECT session_id, recorded_by, value FROM session_traits WHERE name = ?) AS lacking",
                (last, name),
            )
            lacking += int(count)
    return lacking


def _next_day(connection: Connection, kind: Kind, from_ms: int) -> int | None:
    """The first day from a time on that has rows, or sums."""
    ((row,),) = connection.execute(
        f"SELECT min(created_at) FROM {kind.rows.name} WHERE created_at >= ?",  # noqa: S608 - a name of ours
        (from_ms,),
    )
    ((kept,),) = connection.execute(
        "SELECT min(begins_at) FROM named_usage WHERE name = '' AND step = ? AND begins_at >= ?", (KEPT[1].ms, from_ms)
    )
    times = [int(time) for time in (row, kept) if time is not None]
    return min(times) - min(times) % DAY_MS if times else None


def _said(connection: Connection, kind: Kind, day: int, mark: int) -> dict[Key, list[int]]:
    """What the rows of a day say."""
    within = [
        Condition("r.created_at >= ?", (max(day, mark),)),
        Condition("r.created_at < ?", (day + DAY_MS,)),
        Condition("r.position <= ?", (summed_of(connection)[kind.summed],)),
    ]
    sums = named_sums(connection, kind, f"INDEXED BY idx_{kind.rows.name}_created", within)
    is_calls = kind.rows.durations is not None
    return {key: [*change.sums, change.durations] if is_calls else list(change.sums) for key, change in sums.items()}


def _kept(connection: Connection, kind: Kind, day: int, mark: int) -> dict[Key, list[int]]:
    """What the sums of a day are."""
    columns = _COLUMNS[kind.summed]
    found: dict[Key, list[int]] = {}
    rows: Any = connection.execute(
        f"SELECT name, step, begins_at, value, {', '.join(columns)} FROM named_usage "  # noqa: S608 - names of ours
        "WHERE begins_at >= ? AND begins_at < ?",
        (day, day + DAY_MS),
    )
    for name, step, begins_at, value, *values in rows.fetchall():
        if step == KEPT[0].ms and begins_at < mark:
            continue
        sums = [histogram.from_blob(one) if isinstance(one, bytes) else int(one) for one in values]
        found[name, step, begins_at, value] = sums
    return found
