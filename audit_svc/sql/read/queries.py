"""The listings of sessions and of queries, and a session's timeline."""

import heapq
from collections.abc import Iterator

from onrecord.audit.v1 import administration_pb2, questions_pb2

from audit_svc.errors import NotFound
from audit_svc.ledger.pages import Page, control_key, entry_key, query_key, session_key, take_page
from audit_svc.ledger.query import Query
from audit_svc.ledger.records import control_record, model_request_entry, session_record, tool_call_entry
from audit_svc.ledger.tables import CONTROL_COLUMNS, COST_COLUMNS, SESSION_COLUMNS, TOOL_CALL_COLUMNS
from audit_svc.ledger.valid_rows import Values
from audit_svc.sql.database import Database
from audit_svc.sql.marks import ambiguous_session
from audit_svc.sql.read import listing
from audit_svc.sql.read.listing import RECEIPT, ROW_RECEIPT, Condition, Statement
from audit_svc.sql.read.session_traits import OF_CALLS, traits_of, with_trait

_SESSION_NAMES = [*RECEIPT, *(column.name for column in SESSION_COLUMNS)]
_SESSIONS = f"SELECT {', '.join(_SESSION_NAMES)} FROM sessions"  # noqa: S608 - names of ours
_OF_SESSION = "session_id = id AND l.recorded_by = found.recorded_by"
_QUERY_NAMES = ["id", "caller", "method", "filters", "rows", "duration_ms", "status", "times", "created_at"]
_QUERIES = f"SELECT {', '.join(_QUERY_NAMES)} FROM query_log"  # noqa: S608 - names of ours
_CONTROL_NAMES = [*ROW_RECEIPT, *(column.name for column in CONTROL_COLUMNS)]
_CONTROLS = f"SELECT {', '.join(_CONTROL_NAMES)} FROM control_log"  # noqa: S608 - names of ours
_TIMELINE = (
    ("tool_call_log", TOOL_CALL_COLUMNS, "idx_tool_call_log_session"),
    ("cost_log", COST_COLUMNS, "idx_cost_log_session"),
)
"""In the order in which rows of one millisecond come (see entry_key)."""
_KEY_LENGTH = 3


def list_sessions(database: Database, query: Query) -> Page[questions_pb2.SessionRecord]:
    """A page of sessions."""
    found = _fetch_sessions(database, sessions_statement(database, query))
    return take_page(found, _session, query.size, session_key)


def sessions_statement(database: Database, query: Query) -> Statement:
    """The statement behind list_sessions."""
    wanted = query.filter
    label = listing.with_rare_label(database, wanted.labels, "id")
    traits = [with_trait(database, name, values) for name, values in traits_of(wanted).items()]
    equal = {name: value for name, value in wanted.equal.items() if name not in OF_CALLS}
    conditions = [
        *([label] if label else []),
        *(condition for condition, _ in traits),
        *(Condition(f"{name} = ?", (value,)) for name, value in equal.items()),
        *listing.any_of(wanted).values(),
        *listing.time_range(wanted),
        *listing.updated_range(wanted),
        *listing.after_key(query.after),
        *listing.has_labels(wanted.labels, "sessions.id", "sessions.recorded_by", None if label else database),
    ]
    by_filter = next((name for name in ("model", "engine") if name in wanted.equal), "created")
    by_id = label or any(are_few for _, are_few in traits) or "id" in wanted.equal or "id" in wanted.any_of
    walks = [("sqlite_autoindex_sessions_1" if by_id else f"idx_sessions_{by_filter}", conditions)]
    if wanted.statuses:
        each = [Condition("status = ?", (one,)) if one else Condition("status IS NULL") for one in wanted.statuses]
        if by_id or "model" in wanted.equal:
            any_of = f"({' OR '.join(sql for sql, _ in each)})"
            conditions.append(Condition(any_of, tuple(one for _, arguments in each for one in arguments)))
        else:
            walks = [("idx_sessions_status", [status, *conditions]) for status in each]
    parts = [listing.select(f"{_SESSIONS} INDEXED BY {index}", walk) for index, walk in walks]
    return listing.merged(database.dialect, parts, "created_at DESC, position DESC", query.size + 1)


def get_session(database: Database, query: Query) -> tuple[questions_pb2.SessionRecord, Page[questions_pb2.Entry]]:
    """A session and a page of its timeline: where the query says who recorded it, that caller's rows alone.

    Raises:
        NotFound: the ledger does not know it.
        AmbiguousId: the query does not say who recorded it, and several have.
    """
    session_id = query.filter.equal["session_id"]
    conditions = [Condition("id = ?", (session_id,))]
    conditions += [
        Condition("recorded_by = ?", (name,)) for key, name in query.filter.equal.items() if key == "recorded_by"
    ]
    found = _fetch_sessions(database, listing.select(_SESSIONS, conditions))
    if not found:
        of_caller = " of this caller" * (len(conditions) > 1)
        raise NotFound(f"the ledger has no session with this id{of_caller}", "session", session_id)
    if len(found) > 1:
        raise ambiguous_session(session_id, [row[RECEIPT.index("recorded_by")] for row in found])
    session = _session(found[0])
    entries = heapq.merge(
        *(_timeline(database, rank, query) for rank in range(len(_TIMELINE))),
        key=lambda entry: tuple(entry[:_KEY_LENGTH]),
    )
    return session, take_page(entries, _entry, query.size, entry_key)


def list_queries(database: Database, query: Query) -> Page[administration_pb2.QueryRow]:
    """A page of the queries that were put to the ledger."""
    statement = listing.select(
        f"{_QUERIES} INDEXED BY idx_query_log_created",
        [
            *listing.time_range(query.filter),
            *listing.after_key(query.after, row="id"),
            *(Condition(f"{name} = ?", (value,)) for name, value in query.filter.equal.items()),
        ],
    )
    statement = listing.first(statement, "created_at DESC, id DESC", query.size)
    return take_page(database.fetch(_QUERY_NAMES, statement), _query, query.size, query_key)


def list_controls(database: Database, query: Query) -> Page[questions_pb2.ControlRecord]:
    """A page of acts of control."""
    index = "sqlite_autoindex_control_log_1" if "id" in query.filter.equal else "idx_control_log_created"
    statement = listing.select(
        f"{_CONTROLS} INDEXED BY {index}",
        [
            *listing.time_range(query.filter),
            *listing.after_key(query.after),
            *listing.any_of(query.filter).values(),
            *(Condition(f"{name} = ?", (value,)) for name, value in query.filter.equal.items()),
        ],
    )
    statement = listing.first(statement, "created_at DESC, position DESC", query.size)
    return take_page(database.fetch(_CONTROL_NAMES, statement), _control, query.size, control_key)


def _timeline(database: Database, rank: int, query: Query) -> Iterator[Values]:
    """A page of a session's rows of one table of _TIMELINE in their order: (time, rank, position), then the row."""
    table, columns, index = _TIMELINE[rank]
    names = [*ROW_RECEIPT, *(column.name for column in columns)]
    conditions = [Condition(f"{name} = ?", (value,)) for name, value in query.filter.equal.items()]
    if query.after:
        # A comparison of three would not be looked up in the index.
        conditions += [Condition("created_at >= ?", query.after[:1])]
        conditions += [Condition(f"(created_at, {rank}, position) > (?, ?, ?)", query.after)]
    statement = listing.select(f"SELECT {', '.join(names)} FROM {table} INDEXED BY {index}", conditions)  # noqa: S608 - names of ours
    time_at = names.index("created_at")
    for row in database.fetch(names, listing.first(statement, "created_at, position", query.size)):
        yield row[time_at], rank, row[0], row


def _entry(found: Values) -> questions_pb2.Entry:
    _, rank, _, row = found
    build = model_request_entry if rank else tool_call_entry
    return build(row[: len(ROW_RECEIPT)], row[len(ROW_RECEIPT) :])


def _control(found: Values) -> questions_pb2.ControlRecord:
    return control_record(found[: len(ROW_RECEIPT)], found[len(ROW_RECEIPT) :])


def _query(values: Values) -> administration_pb2.QueryRow:
    names = ("id", "caller", "method", "filters", "rows", "duration_ms", "status", "times", "created_at_ms")
    return administration_pb2.QueryRow(**dict(zip(names, values, strict=True)))


def _fetch_sessions(database: Database, statement: Statement) -> list[Values]:
    return database.fetch([*_SESSION_NAMES, database.dialect.labels.format(_OF_SESSION)], statement)


def _session(found: Values) -> questions_pb2.SessionRecord:
    *row, labels = found
    return session_record(row[: len(RECEIPT)], row[len(RECEIPT) :], labels)
