"""One field for what is looked for: the id of a row, whole or in part; else a text in the arguments of calls."""

import asyncio
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import grpc
from onrecord.audit.v1 import questions_pb2
from starlette.responses import Response

from audit_svc.ledger.query import MAX_TEXT
from audit_svc.ledger.steps import HOUR_MS
from audit_svc.terminal.client import ROWS, SESSIONS, Ids
from audit_svc.ui.asked import Asked, WrongAddress
from audit_svc.ui.pages import session
from audit_svc.ui.pages.sessions import labels_of
from audit_svc.ui.remote import NotAnswered
from audit_svc.ui.texts import link
from recording.controls import has_control
from service_kit.terminal.ids import SHORT, fitting

PAGE = 50
SESSIONS_SHOWN = 10
LOOKED_THROUGH = 1000
"""The newest rows of a kind, among which a part of an id is looked for."""
LEAST_TEXT = 3
"""Characters: the ledger's index has the texts of so many."""
TITLE = "title"
"""The label that a session's title is."""
BEFORE_MS, AFTER_MS = 60_000, HOUR_MS
"""Around the time in a turn's id, when its rows began."""
KINDS = {"session": "session", "tool_call": "tool call", "model_request": "model request", "control": "act of control"}
TURN = "turn"
_CALLS, _REQUESTS, _ = ROWS
_ID = re.compile(r"[^\s=]{1,128}")
_PART = re.compile(rf"(?=.*\d)[\w.:-]{{{SHORT},128}}")

ByText = tuple[list[questions_pb2.ToolCallRecord], str, list[questions_pb2.SessionRecord], bool]
"""Calls, the token of their next page, sessions, and whether there are more of these."""
_NOTHING: ByText = ([], "", [], False)


@dataclass(frozen=True, slots=True)
class Found:
    """What an id is of. record: as it was listed, of a turn that of one of its rows."""

    kind: str
    id: str
    session_id: str
    recorded_by: str
    at_ms: int
    record: Any = field(compare=False, hash=False)

    @property
    def session(self) -> str:
        """The address of its session; empty where it has none."""
        return link("/session", id=self.session_id, by=self.recorded_by) if self.session_id else ""


async def search(asked: Asked) -> Response:
    """Leads to the one row of an id; else the page. Raises WrongAddress, NotAnswered."""
    wanted, page = asked.text("q"), asked.text("page")
    if len(wanted) > MAX_TEXT:
        raise WrongAddress(f"q has more than {MAX_TEXT:,} characters, and so more than any arguments that are recorded")
    if "\0" in wanted:
        raise WrongAddress("q has a NUL character, which no row has: leave it out")
    if page and len(wanted) < LEAST_TEXT:
        raise WrongAddress(f"page goes on with a text: q has at least {LEAST_TEXT} characters")
    rows = [] if page else await _by_id(asked, wanted)
    calls, following, sessions, are_more = _NOTHING
    if not rows:
        by_text, parts = await asyncio.gather(_by_text(asked, wanted, page), _by_part(asked, "" if page else wanted))
        calls, following, sessions, are_more = by_text
        rows = parts
    if len(rows) == 1 and (place := await _place(asked, rows[0])):
        return asked.go_to(place)
    return asked.page(
        "search.html",
        q=wanted,
        is_first=not page,
        least=LEAST_TEXT,
        newest=LOOKED_THROUGH,
        short=SHORT,
        rows=rows[:PAGE],
        fit=len(rows),
        calls=calls,
        following=link("/search", q=wanted, page=following) if following else "",
        sessions=sessions,
        all_sessions=link("/sessions", label=_label(wanted)) if are_more else "",
    )


async def _by_id(asked: Asked, wanted: str) -> list[Found]:
    """The rows of a whole id, however old; of a turn those of whose id tells the time."""
    if not _ID.fullmatch(wanted) or has_control(wanted):
        return []
    asking = [_listed(asked, kind, PAGE, id=wanted) for kind in (SESSIONS, *ROWS)]
    if (at_ms := _time_in(wanted)) is not None:
        times = {"created_from_ms": max(0, at_ms - BEFORE_MS), "created_before_ms": at_ms + AFTER_MS}
        asking += [_listed(asked, kind, 1, turn_id=wanted, **times) for kind in (_CALLS, _REQUESTS)]
    found = await asyncio.gather(*asking)
    kinds = len(ROWS) + 1
    turns = [turn for row in _chain(found[kinds:]) for turn in _turn_of(row)]
    return list(dict.fromkeys([*_chain(found[:kinds]), *turns]))


async def _by_part(asked: Asked, wanted: str) -> list[Found]:
    """The rows among the newest whose ids begin or end so."""
    if not _PART.fullmatch(wanted) or _time_in(wanted) is not None:  # which was looked for as a whole one
        return []
    newest = list(_chain(await asyncio.gather(*(_listed(asked, kind, LOOKED_THROUGH) for kind in (SESSIONS, *ROWS)))))
    all_rows = dict.fromkeys([*newest, *(turn for row in newest for turn in _turn_of(row))])
    fit = set(fitting(wanted, (row.id for row in all_rows)))
    return [row for row in all_rows if row.id in fit]


async def _by_text(asked: Asked, wanted: str, page: str) -> ByText:
    if not wanted:
        return _NOTHING
    (calls, following), (sessions, are_more) = await asyncio.gather(
        _calls(asked, wanted, page), _labelled(asked, wanted, page)
    )
    return calls, following, sessions, are_more


async def _calls(asked: Asked, wanted: str, page: str) -> tuple[list[questions_pb2.ToolCallRecord], str]:
    if len(wanted) < LEAST_TEXT:
        return [], ""
    contain = questions_pb2.ToolCallFilter(args_contain=wanted)
    request = questions_pb2.ListToolCallsRequest(filter=contain, page_size=PAGE, page_token=page)
    response: questions_pb2.ListToolCallsResponse = await asked.ledger.ask("ListToolCalls", request)
    return list(response.tool_calls), response.next_page_token


async def _labelled(asked: Asked, wanted: str, page: str) -> tuple[list[questions_pb2.SessionRecord], bool]:
    if page or has_control(wanted):
        return [], False
    by_label = questions_pb2.SessionFilter(labels=labels_of([_label(wanted)]))
    request = questions_pb2.ListSessionRecordsRequest(filter=by_label, page_size=SESSIONS_SHOWN)
    response: questions_pb2.ListSessionRecordsResponse = await asked.ledger.ask("ListSessionRecords", request)
    return list(response.sessions), bool(response.next_page_token)


def _label(wanted: str) -> str:
    """As key=value."""
    return wanted if wanted.partition("=")[0].strip() and "=" in wanted else f"{TITLE}={wanted}"


async def _listed(asked: Asked, kind: Ids, size: int, **conditions: Any) -> list[Found]:
    request: Any = kind.request(page_size=size)
    for name, value in conditions.items():
        setattr(request.filter, name, value)
    response = await asked.ledger.ask(kind.rpc, request)
    return [_found(kind, record) for record in getattr(response, kind.rows)]


def _found(kind: Ids, record: Any) -> Found:
    row = getattr(record, kind.row)
    session_id = row.id if kind is SESSIONS else getattr(row, "session_id", "")
    at_ms = row.at_ms if kind.row == "control" else row.created_at_ms
    return Found(KINDS[kind.row], row.id, session_id, record.receipt.recorded_by, at_ms, record)


def _turn_of(row: Found) -> Iterator[Found]:
    of: Any = getattr(row.record, "tool_call", None) or getattr(row.record, "model_request", None)
    if of is not None and of.turn_id:
        yield Found(TURN, of.turn_id, of.session_id, row.recorded_by, 0, row.record)


def _time_in(text: str) -> int | None:
    """The milliseconds since 1970 that a UUIDv7 begins with; None where it is none."""
    try:
        number = UUID(text)
    except ValueError:
        return None
    return number.int >> 80 if number.version == 7 else None


async def _place(asked: Asked, row: Found) -> str:
    """The address of a row in its session's page; empty where it is further on than that shows at once, or nowhere."""
    if row.kind == KINDS["session"] or not row.session:
        return row.session
    key = questions_pb2.RowKey(id=row.session_id, recorded_by=row.recorded_by)
    request = questions_pb2.GetSessionRecordRequest(session=key, page_size=session.PAGE)
    try:
        answer: questions_pb2.GetSessionRecordResponse = await asked.ledger.ask("GetSessionRecord", request)
    except NotAnswered as failed:
        if failed.code is grpc.StatusCode.NOT_FOUND:
            return ""
        raise
    for number, turn in enumerate(session.turns_of(answer.entries), 1):
        if row.kind == TURN and turn.id == row.id:
            return f"{row.session}#turn-{number}"
        for node in turn.nodes:
            one = node.call or node.request
            if one is not None and one.id == row.id and row.kind != TURN:
                return f"{row.session}#{'call' if node.call else 'request'}-{node.receipt.position}"
    return ""


def _chain(lists: Iterable[Iterable[Found]]) -> Iterator[Found]:
    return (row for rows in lists for row in rows)
