"""Compiled queries: a request, checked and parsed once, for any store to answer."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import InvalidRequest
from audit_svc.ledger.columns import enum_names
from audit_svc.ledger.groups import check_groups
from service_kit.paging import Position, decode_token, encode_token, page_size

MAX_LABELS = 32
MAX_TEXT = 4096
"""The longest text to search for, in characters: as long as the longest summary of arguments."""

OUTCOMES = enum_names("OUTCOME_", audit_pb2.Outcome.items())
STATUSES = enum_names("SESSION_STATUS_", audit_pb2.SessionStatus.items())

_EQUAL = ("session_id", "engine", "model", "tool_name", "caller", "method")


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects the rows that meet all conditions that are set."""

    equal: Mapping[str, str] = field(default_factory=dict)
    """Columns, each with the value that it must have."""
    outcomes: tuple[str | None, ...] = ()
    """Any of these; None stands for a call without an outcome."""
    errors_only: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    """Labels that the row's session must all have."""
    contains: str = ""
    """A text in the summary of the arguments, ignoring ASCII case."""
    clock_suspect: bool = False
    """Only rows whose time contradicts the ledger's clock or its pruned mark."""
    from_ms: int | None = None
    before_ms: int | None = None


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
    fingerprint: bytes = b""
    """A page token is bound to this: the method, and the request without its page."""

    def token(self, position: Position | None) -> str:
        """The page token for the rows after position; empty if there are none."""
        return "" if position is None else encode_token(position, self.fingerprint)


def filter_of(request: Any) -> Filter:
    """The filter of any request. Fields that the request's type lacks do not filter.

    Raises:
        InvalidRequest: a field has a value that no row can have.
    """
    has = request.DESCRIPTOR.fields_by_name
    equal = {name: value for name in _EQUAL if name in has and (value := getattr(request, name))}
    if "status" in has and request.status:
        equal["status"] = str(_name(STATUSES, request.status, "status"))
    labels = request.labels if "labels" in has else {}
    if len(labels) > MAX_LABELS:
        raise InvalidRequest(f"labels has more than {MAX_LABELS} entries, which no session has", "labels")
    contains = request.args_contain if "args_contain" in has else ""
    if len(contains) > MAX_TEXT:
        raise InvalidRequest(
            f"args_contain is longer than {MAX_TEXT} characters, and so than any summary", "args_contain"
        )
    return Filter(
        equal,
        outcomes_of(request.outcomes if "outcomes" in has else ()),
        bool("errors_only" in has and request.errors_only),
        tuple(sorted(labels.items())),
        contains,
        bool("clock_suspect" in has and request.clock_suspect),
        *_time_range(request, has),
    )


def query_of(request: Any, key: tuple[type[int] | type[str], ...] = (int, str)) -> Query:
    """A request and its page. key: the types of the key in its page tokens.

    Raises:
        InvalidRequest: a field has a value that no row can have.
        InvalidPage: the page size is negative, or the token was given for other filters.
    """
    has = request.DESCRIPTOR.fields_by_name
    group_by = check_groups(request.group_by) if "group_by" in has else ()
    wanted = filter_of(request)
    size = page_size(request.page_size if "page_size" in has else 0)
    fingerprint = fingerprint_of(request)
    after = None
    if request.page_token:
        after = decode_token(request.page_token, fingerprint, (str,) * len(group_by) if "group_by" in has else key)
    return Query(wanted, size, after, group_by, fingerprint)


def session_query_of(request: audit_pb2.GetSessionRequest) -> Query:
    """A request for a session and a page of its timeline.

    Raises:
        InvalidRequest: it names no session.
        InvalidPage: the page size is negative, or the token is of another session.
    """
    if not request.session_id:
        raise InvalidRequest("session_id is empty", "session_id")
    return query_of(request)


def outcomes_of(outcomes: Iterable[int]) -> tuple[str | None, ...]:
    """The stored names of outcomes, each once; None for OUTCOME_UNSPECIFIED.

    Raises:
        InvalidRequest: one is not known.
    """
    return tuple(_name(OUTCOMES, outcome, "outcomes") for outcome in dict.fromkeys(outcomes))


def _name(names: Mapping[int, str | None], number: int, field_name: str) -> str | None:
    if number not in names:
        raise InvalidRequest(f"{field_name} has a value that this ledger does not know", field_name)
    return names[number]


def _time_range(request: Any, has: Container[str]) -> tuple[int | None, int | None]:
    begin, end = (
        getattr(request, name) if name in has and request.HasField(name) else None
        for name in ("created_from_ms", "created_before_ms")
    )
    if min(begin or 0, end or 0) < 0:
        raise InvalidRequest(
            "created_from_ms and created_before_ms are milliseconds since 1970: they are not negative",
            "created_from_ms",
        )
    if begin is not None and end is not None and begin >= end:
        raise InvalidRequest(
            "created_from_ms is not before created_before_ms, so that no time is in the range", "created_from_ms"
        )
    return begin, end


def fingerprint_of(request: Message) -> bytes:
    """The value that a request's page tokens are bound to: the method, and the request without its page."""
    copy = type(request)()
    copy.CopyFrom(request)
    for name in {"page_size", "page_token"} & set(request.DESCRIPTOR.fields_by_name):
        copy.ClearField(name)
    return type(request).__name__.encode() + copy.SerializeToString(deterministic=True)
