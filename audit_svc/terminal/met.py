"""Whether anything on record meets what a hold asks for."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from google.protobuf.message import Message
from onrecord.audit.v1 import administration_pb2, questions_pb2

from audit_svc.terminal.client import PAGE_SECONDS, ROWS, SESSIONS, Client, Ids, all_rows

PAGES = 20
"""So many are looked at of one listing, each of which may end early. What is behind them may meet it."""
_OF_SESSIONS = {
    **{name: name for name in ("engine", "model", "recorded_by", "labels", "created_from_ms", "created_before_ms")},
    "session_id": "id",
}
_OF_CONTROLS = {name: name for name in ("principal", "recorded_by", "created_from_ms", "created_before_ms")}
_CALLS, _REQUESTS, _CONTROLS = ROWS


def may_be_met(client: Client, held: administration_pb2.HoldFilter) -> bool:
    """False where no row meets it; True also where it takes long to know."""
    return any(_has_some(client, kind, wanted) for kind, wanted in _filters(client, held))


def _filters(client: Client, held: administration_pb2.HoldFilter) -> Iterator[tuple[Ids, Message]]:
    """Kinds of rows that can meet it, each with what it then asks of them."""
    if held.tool_glob:
        request = questions_pb2.SummarizeUsageRequest(group_by=["tool"])
        tools = [group.values[0] for group in all_rows(client, "SummarizeUsage", request, "groups")]
        for tool in tools:
            if tool and fnmatchcase(tool, held.tool_glob) and held.calls.tool_name in ("", tool):
                wanted = questions_pb2.ToolCallFilter()
                wanted.CopyFrom(held.calls)
                wanted.tool_name = tool
                yield _CALLS, wanted
        return
    yield _CALLS, held.calls
    of_requests = {name: name for name in questions_pb2.ModelRequestFilter.DESCRIPTOR.fields_by_name}
    for kind, known in ((_REQUESTS, of_requests), (SESSIONS, _OF_SESSIONS), (_CONTROLS, _OF_CONTROLS)):
        asked: Any = kind.request()
        filters = asked.filter
        if _copied(held.calls, filters, known):
            yield kind, filters


def _copied(calls: questions_pb2.ToolCallFilter, filters: Any, known: dict[str, str]) -> bool:
    """Puts what is asked of calls in a filter of another kind; False where rows of that kind cannot meet it."""
    for field, value in calls.ListFields():
        if field.name not in known:
            return False
        name = known[field.name]
        if isinstance(value, Message):
            getattr(filters, name).CopyFrom(value)
        elif hasattr(value, "items"):
            getattr(filters, name).update(value)
        elif hasattr(value, "extend"):
            getattr(filters, name).extend(value)
        else:
            setattr(filters, name, value)
    return True


def _has_some(client: Client, kind: Ids, wanted: Message) -> bool:
    request: Any = kind.request(filter=wanted, page_size=1)
    for _ in range(PAGES):
        page = client.call(kind.rpc, request, PAGE_SECONDS)
        if getattr(page, kind.rows):
            return True
        request.page_token = page.next_page_token
        if not request.page_token:
            return False
    return True
