"""What all listings share: conditions, order by key, pages and their tokens.

Pages go by key, (created_at, id), never by offset. An index gives the order by created_at, and SQLite sorts rows of one
millisecond among themselves.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import apsw
from google.protobuf.message import Message
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import InvalidRequest
from audit_svc.ledger.batch import Values
from audit_svc.ledger.columns import enum_names
from service_kit.paging import Position, decode_token, encode_token, page_size

MAX_PAGE_BYTES = 3 * 2**20
"""A page ends early beyond this: gRPC clients take messages of 4 MiB unless told otherwise."""

FEW_SESSIONS = 200
"""As many sessions with a label are looked up one by one; more are met soon enough on the way through all rows."""

MAX_LABELS = 32

_OUTCOMES = enum_names("OUTCOME_", audit_pb2.Outcome.items())

Row = TypeVar("Row", bound=Any)


class Condition(NamedTuple):
    """A part of a WHERE clause."""

    sql: str
    arguments: tuple[int | str, ...] = ()


class Statement(NamedTuple):
    """SQL and its arguments."""

    sql: str
    arguments: list[int | str]


def time_range(request: Any) -> list[Condition]:
    """created_from_ms and created_before_ms of a request.

    Raises:
        InvalidRequest: no time can be in the range.
    """
    conditions = []
    if request.HasField("created_from_ms"):
        conditions.append(Condition("created_at >= ?", (request.created_from_ms,)))
    if request.HasField("created_before_ms"):
        conditions.append(Condition("created_at < ?", (request.created_before_ms,)))
    if min((part.arguments[0] for part in conditions), default=0) < 0:  # type: ignore[operator] # both are numbers
        raise InvalidRequest(
            "created_from_ms and created_before_ms are milliseconds since 1970: they are not negative",
            "created_from_ms",
        )
    if len(conditions) == 2 and request.created_from_ms >= request.created_before_ms:
        raise InvalidRequest(
            "created_from_ms is not before created_before_ms, so that no time is in the range", "created_from_ms"
        )
    return conditions


def has_labels(labels: Mapping[str, str], session: str) -> list[Condition]:
    """Conditions that the session, a column's name, has all of labels."""
    # A value and no EXISTS, which SQLite may make the outer loop of a join, in another order than the listing's.
    sql = f"(SELECT l.value FROM session_labels l WHERE l.session_id = {session} AND l.key = ?) = ?"  # noqa: S608 - a name of ours
    return [Condition(sql, pair) for pair in sorted(labels.items())]


def with_rare_label(connection: apsw.Connection, labels: Mapping[str, str], session: str) -> Condition | None:
    """A condition that looks up the few sessions with the rarest of labels, or None when each has many.

    Raises:
        InvalidRequest: there are more labels than a session can have.
    """
    if len(labels) > MAX_LABELS:
        raise InvalidRequest(f"labels has more than {MAX_LABELS} entries, which no session has", "labels")
    some = "SELECT 1 FROM session_labels INDEXED BY idx_session_labels_label WHERE key = ? AND value = ? LIMIT ?"
    found = [
        (len(connection.execute(some, (*pair, FEW_SESSIONS + 1)).fetchall()), pair) for pair in sorted(labels.items())
    ]
    sessions, pair = min(found, default=(FEW_SESSIONS + 1, ("", "")))
    if sessions > FEW_SESSIONS:
        return None
    sql = "(SELECT session_id FROM session_labels INDEXED BY idx_session_labels_label WHERE key = ? AND value = ?)"
    return Condition(f"{session} IN {sql}", pair)


def beyond(position: Sequence[int | str], *, ascending: bool = False) -> Condition:
    """What comes after a position, (created_at, id), in the order of the listing."""
    return Condition(f"(created_at, id) {'>' if ascending else '<'} (?, ?)", tuple(position))


def outcome_names(outcomes: Iterable[int]) -> list[str | None]:
    """What the tables call outcomes, each once; None for one that is not set.

    Raises:
        InvalidRequest: one is not known.
    """
    if not _OUTCOMES.keys() >= (asked := dict.fromkeys(outcomes)).keys():
        raise InvalidRequest("outcomes has a value that this ledger does not know", "outcomes")
    return [_OUTCOMES[outcome] for outcome in asked]


def position_of(request: Any, shape: tuple[type[int] | type[str], ...] = (int, str)) -> Position | None:
    """Where the page begins: what its token says, or None for the first.

    Raises:
        InvalidPage: the token is not of these filters.
    """
    return decode_token(request.page_token, filters(request), shape) if request.page_token else None


def select(what: str, conditions: Iterable[Condition]) -> Statement:
    """A SELECT with all of conditions."""
    parts = list(conditions)
    where = " AND ".join(part.sql for part in parts)
    return Statement(f"{what}{' WHERE ' if where else ''}{where}", [x for part in parts for x in part.arguments])


def one_page(statement: Statement, order: str, request: Any) -> Statement:
    """The statement, as far as take_page() needs it.

    Raises:
        InvalidPage: the page size is negative.
    """
    return Statement(f"{statement.sql} ORDER BY {order} LIMIT {page_size(request.page_size) + 1}", statement.arguments)


def fetch(connection: apsw.Connection, columns: Sequence[str], statement: Statement) -> list[Values]:
    """All rows of a statement in their order, in one step of SQLite.

    Each step of a statement waits for Python's lock when it is done, which the writer and the event loop want too.

    columns: expressions over the statement's columns: texts, whole numbers, NULL, or what json() makes.
    statement: where it has an order it has a LIMIT too, since SQLite may not sort what is only gathered.
    """
    sql = f"SELECT json_group_array(json_array({', '.join(columns)})) FROM ({statement.sql})"  # noqa: S608 - names of ours
    ((rows,),) = connection.execute(sql, statement.arguments)
    found: list[Values] = json.loads(rows)
    return found


def take_page(
    found: Iterable[Values], read: Callable[[Values], Row], request: Any, key: Callable[[Row], tuple[int | str, ...]]
) -> tuple[list[Row], str]:
    """The rows of one page, and the token of the next; no token when found has ended.

    Raises:
        InvalidPage: the page size is negative.
    """
    size = page_size(request.page_size)
    rows: list[Row] = []
    size_bytes = 0
    for values in found:
        if len(rows) == size or size_bytes > MAX_PAGE_BYTES:
            return rows, encode_token(key(rows[-1]), filters(request))
        rows.append(read(values))
        size_bytes += rows[-1].ByteSize()
    return rows, ""


def filters(request: Message) -> bytes:
    """What a page token is bound to: the method, and the request but for its page."""
    copy = type(request)()
    copy.CopyFrom(request)
    for name in {"page_size", "page_token"} & set(copy.DESCRIPTOR.fields_by_name):
        copy.ClearField(name)
    return type(request).__name__.encode() + copy.SerializeToString(deterministic=True)
