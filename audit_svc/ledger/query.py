"""Compiled queries: a request, checked and parsed once, for any store to answer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from onrecord.audit.v1 import questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.errors import InvalidRequest
from audit_svc.ledger.columns import enum_names
from audit_svc.ledger.groups import check_groups
from audit_svc.ledger.tables import CONTROL_KINDS, DECISION_SOURCES, OUTCOMES, SOURCES, VERDICTS
from service_kit.paging import Position, decode_token, encode_token, page_size

MAX_LABELS = 32
MAX_IDS = 1000
MAX_TEXT = 4096
"""The longest text to search for, in characters: as long as the longest summary of arguments."""

STATUSES = enum_names("SESSION_STATUS_", common_pb2.SessionStatus.items())

_EQUAL = (
    *("id", "session_id", "turn_id", "engine", "model", "tool_name", "caller", "method"),
    *("principal", "on_behalf_of", "parent_turn_id", "decided_by", "rule", "policy_digest"),
)
_RENAMED = {"agent_name": "agent"}
_INNER = {
    "agent": {"name": "agent", "version": "agent_version"},
    "mcp_server": {"name": "mcp_server", "version": "mcp_server_version"},
    "args_digest": {"key_id": "args_digest_key", "hmac_sha256": "args_digest"},
}
"""Conditions that are messages: the column of each of their fields."""
_ANY_OF = {
    "sources": ("source", SOURCES),
    "verdicts": ("verdict", VERDICTS),
    "decision_sources": ("decision_source", DECISION_SOURCES),
    "kinds": ("kind", CONTROL_KINDS),
}
"""Lists of values of an enum, with the column that must have one of them; null in it is a value too."""
_OF_CALLS = {
    *("tool_name", "mcp_server", "mcp_server_version", "args_digest_key", "args_digest"),
    *("verdict", "decision_source", "decided_by", "rule", "policy_digest"),
}
"""Columns that model requests do not have."""
_NAME = "recorded_by"
"""Which may be empty, where it is set."""
_WHERE_TO_GO_ON = {"page_size", "page_token", "resume_token", "after_position", "skip_when_behind"}


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects the rows that meet all conditions that are set."""

    equal: Mapping[str, str] = field(default_factory=dict)
    """Columns, each with the value that it must have."""
    outcomes: tuple[str | None, ...] = ()
    """Any of these; None stands for a call without an outcome."""
    statuses: tuple[str | None, ...] = ()
    """Any of these; None stands for a session without a status."""
    has_error: bool | None = None
    is_whole: bool | None = None
    """Whether nothing of a producer is missing, and nothing was refused."""
    shadow: bool | None = None
    clock_suspect: bool | None = None
    """Whether the ledger's clock, or what it was pruned to, contradicts the row's time."""
    labels: tuple[tuple[str, str], ...] = ()
    """Labels that the row's session must all have."""
    contains: str = ""
    """A text within the summary of the arguments, whatever the case of its ASCII letters."""
    from_ms: int | None = None
    before_ms: int | None = None
    updated_from_ms: int | None = None
    updated_before_ms: int | None = None
    any_of: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    """Columns, each with the values of which it must have one; None stands for null."""

    @property
    def is_of_calls(self) -> bool:
        """Whether no model request can meet it, since it asks for what only tool calls have."""
        of_calls = (self.has_error, self.clock_suspect)
        asked = self.equal.keys() | self.any_of.keys()
        return bool(asked & _OF_CALLS or self.outcomes or self.contains) or of_calls != (None, None)


@dataclass(frozen=True, slots=True)
class Query:
    """A request for one page."""

    filter: Filter
    size: int
    """Rows of the page at most."""
    after: Position | None
    """The key of the last row before the page; None for the first page."""
    group_by: tuple[str, ...] = ()
    """Of a summary of usage: see audit_svc.ledger.groups."""
    by_cost: bool = False
    """Whether the groups that cost most come first. The key of a group then begins with its cost and its calls."""
    fingerprint: bytes = b""
    """A page token is bound to this: the method, and the request without its page."""

    def token(self, position: Position | None) -> str:
        """The page token for the rows after position; empty if there are none."""
        return "" if position is None else encode_token(position, self.fingerprint)


def filter_of(request: Any) -> Filter:
    """The filter of any request: its field `filter` where it has one, else its own fields.

    Fields that the filter's type lacks do not filter.

    Raises:
        InvalidRequest: a field has a value that no row can have.
    """
    if "filter" in request.DESCRIPTOR.fields_by_name:
        return _Reader(request.filter, "filter.").read()
    return _Reader(request).read()


def query_of(request: Any, key: tuple[type[int] | type[str], ...] = (int, int)) -> Query:
    """A request and its page. key: the types of the key in its page tokens.

    Raises:
        InvalidRequest: a field has a value that no row can have.
        InvalidPage: the page size is negative, or the token was given for other filters.
    """
    group_by = check_groups(request.group_by) if "group_by" in request.DESCRIPTOR.fields_by_name else None
    by_cost = "order" in request.DESCRIPTOR.fields_by_name and _is_by_cost(request.order)
    if group_by is not None:
        key = (*((int, int) if by_cost else ()), *(str,) * len(group_by))
    return _paged(request, filter_of(request), key, group_by or (), by_cost=by_cost)


def session_query_of(request: questions_pb2.GetSessionRecordRequest) -> Query:
    """A request for a session and a page of its timeline. Its filter has the session's id, and who recorded it.

    Raises:
        InvalidRequest: it names no session.
        InvalidPage: the page size is negative, or the token is of another session.
    """
    if not request.session.id:
        raise InvalidRequest("session.id is empty", "session.id")
    equal = {"session_id": request.session.id}
    if request.session.HasField("recorded_by"):
        equal["recorded_by"] = request.session.recorded_by
    return _paged(request, Filter(equal), (int, int, int))


def fingerprint_of(request: Message) -> bytes:
    """The value that a request's page tokens are bound to: the method, and the request without its page."""
    copy = type(request)()
    copy.CopyFrom(request)
    for name in _WHERE_TO_GO_ON & set(request.DESCRIPTOR.fields_by_name):
        copy.ClearField(name)
    return type(request).__name__.encode() + copy.SerializeToString(deterministic=True)


def _is_by_cost(order: int) -> bool:
    if order not in questions_pb2.UsageOrder.values():
        raise InvalidRequest("order has a value that this ledger does not know", "order")
    return order == questions_pb2.USAGE_ORDER_COST


def _paged(
    request: Any,
    wanted: Filter,
    shape: tuple[type[int] | type[str], ...],
    group_by: tuple[str, ...] = (),
    *,
    by_cost: bool = False,
) -> Query:
    has = request.DESCRIPTOR.fields_by_name
    size = page_size(request.page_size if "page_size" in has else 0)
    fingerprint = fingerprint_of(request)
    name = "page_token" if "page_token" in has else "resume_token"
    token = getattr(request, name)
    after = decode_token(token, fingerprint, shape, name) if token else None
    return Query(wanted, size, after, group_by, by_cost, fingerprint)


class _Reader:
    """Reads a message of conditions."""

    def __init__(self, message: Any, path: str = "") -> None:
        self._message = message
        self._path = path
        self._has = message.DESCRIPTOR.fields_by_name

    def read(self) -> Filter:
        """All conditions. Raises InvalidRequest."""
        return Filter(
            {name: value for name in _EQUAL if (value := self._get(name, ""))}
            | {column: value for name, column in _RENAMED.items() if (value := self._get(name, ""))}
            | self._recorded_by()
            | self._inner(),
            self._names("outcomes", OUTCOMES),
            self._names("statuses", STATUSES),
            self._optional("has_error"),
            self._optional("is_whole"),
            self._optional("shadow"),
            self._optional("clock_suspect"),
            self._labels(),
            self._text(),
            *self._time_range("created"),
            *self._time_range("updated"),
            {column: found for name, (column, names) in _ANY_OF.items() if (found := self._names(name, names))}
            | self._ids(),
        )

    def _get(self, name: str, default: Any) -> Any:
        return getattr(self._message, name) if name in self._has else default

    def _optional(self, name: str) -> Any:
        return getattr(self._message, name) if name in self._has and self._message.HasField(name) else None

    def _recorded_by(self) -> dict[str, str]:
        name = self._optional(_NAME)
        return {} if name is None else {_NAME: name}

    def _inner(self) -> dict[str, str]:
        """The conditions of _INNER. A name is asked for before a version, and a key before a digest."""
        equal: dict[str, str] = {}
        for name, columns in _INNER.items():
            if (message := self._optional(name)) is None:
                continue
            first, *_ = columns
            if not getattr(message, first):
                raise self._invalid(f"{name}.{first}", f"is empty: say which {name} is meant, or leave {name} out")
            for inner, column in columns.items():
                value = getattr(message, inner)
                if value:
                    equal[column] = value.hex() if isinstance(value, bytes) else value
        return equal

    def _invalid(self, name: str, reason: str) -> InvalidRequest:
        return InvalidRequest(f"{self._path}{name} {reason}", f"{self._path}{name}")

    def _names(self, name: str, names: Mapping[int, str | None]) -> tuple[str | None, ...]:
        """The stored names of an enum's values, each once; None for the one that says that nothing is set."""
        numbers: Iterable[int] = dict.fromkeys(self._get(name, ()))
        if any(number not in names for number in numbers):
            raise self._invalid(name, "has a value that this ledger does not know")
        return tuple(names[number] for number in numbers)

    def _ids(self) -> dict[str, tuple[str, ...]]:
        ids = tuple(dict.fromkeys(self._get("ids", ())))
        if len(ids) > MAX_IDS:
            raise self._invalid("ids", f"has more than {MAX_IDS} entries: ask in several requests")
        return {"id": ids} if ids else {}

    def _labels(self) -> tuple[tuple[str, str], ...]:
        labels = self._get("labels", {})
        if len(labels) > MAX_LABELS:
            raise self._invalid("labels", f"has more than {MAX_LABELS} entries, which no session has")
        return tuple(sorted(labels.items()))

    def _text(self) -> str:
        text: str = self._get("args_contain", "")
        if len(text) > MAX_TEXT:
            raise self._invalid("args_contain", f"is longer than {MAX_TEXT} characters, and so than any summary")
        return text

    def _time_range(self, what: str) -> tuple[int | None, int | None]:
        first, last = f"{what}_from_ms", f"{what}_before_ms"
        begin, end = self._optional(first), self._optional(last)
        for name, time in ((first, begin), (last, end)):
            if time is not None and time < 0:
                raise self._invalid(name, "is in milliseconds since 1970: it is not negative")
        if begin is not None and end is not None and begin >= end:
            raise self._invalid(first, f"is not before {last}, so that no time is in the range")
        return begin, end
