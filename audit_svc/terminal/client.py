"""The ledger that a command asks: a running service, or a file."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from google.protobuf.message import Message
from onrecord.audit.v1 import questions_pb2

from audit_svc.errors import NotFound
from audit_svc.terminal.options import Requests, Source, Times
from audit_svc.terminal.running import as_option, err, error_is_exit_code_1, ledger_path, progress, refuse_both
from service_kit.terminal.ids import is_whole, whole_id
from service_kit.times import show_time

PAGE = 1000
PAGE_SECONDS = 30.0
LOOKED_THROUGH = 10_000
"""The newest rows of a kind, among which a part of an id is looked for."""


class Ids(NamedTuple):
    """What lists rows that have ids."""

    rpc: str
    request: type[Message]
    rows: str
    """The field of the answer."""
    row: str
    """That of a record."""


SESSIONS = Ids("ListSessionRecords", questions_pb2.ListSessionRecordsRequest, "sessions", "session")
ROWS = (
    Ids("ListToolCalls", questions_pb2.ListToolCallsRequest, "tool_calls", "tool_call"),
    Ids("ListModelRequests", questions_pb2.ListModelRequestsRequest, "model_requests", "model_request"),
    Ids("ListControls", questions_pb2.ListControlsRequest, "controls", "control"),
)
"""Those whose texts can be erased."""


class Client(Protocol):
    """Answers the RPCs that ask a ledger, by their names."""

    def call(self, rpc: str, request: Message, timeout: float | None = None) -> Any:
        """The response of a unary RPC, an iterator of those of a stream. timeout is in seconds."""
        ...


@contextmanager
def connect(source: Source) -> Iterator[Client]:
    """A client of source. A failure in the body ends the program with a sentence and exit code 1."""
    refuse_both(source.db, source.target)
    where = as_option(source.db, source.target)
    with error_is_exit_code_1(where):
        if source.db is None:
            from audit_svc.terminal.service import answers_are_exit_code_1, open_service  # who reads a file needs none

            with (
                answers_are_exit_code_1(source.address, "--db FILE reads a ledger's file; ", where),
                open_service(source.address) as service,
            ):
                yield service
        else:
            from audit_svc.terminal.file import open_file

            with open_file(ledger_path(source.db)) as file:
                yield file


def listed(
    source: Source, rpc: str, request: Any, rows: str, limit: int = sys.maxsize, asked: Requests | None = None
) -> list[Any]:
    """Up to limit rows of a paged RPC, over as many pages as it takes; rows is their field.

    asked: where there is none, refuse_unknown() is asked why.
    """
    with connect(source) as client, progress("asking") as tell:
        found = all_rows(client, rpc, request, rows, limit, tell)
        if asked and not found:
            refuse_unknown(client, asked)
        return found


def all_rows(
    client: Client,
    rpc: str,
    request: Any,
    rows: str,
    limit: int = sys.maxsize,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[Any]:
    """As listed(), of a client at hand. tell: told how many there are after each page."""
    found: list[Any] = []
    while len(found) < limit:
        request.page_size = min(limit - len(found), PAGE)
        response = client.call(rpc, request, PAGE_SECONDS)
        found += getattr(response, rows)
        request.page_token = response.next_page_token
        if not request.page_token:
            break
        tell(len(found), 0 if limit == sys.maxsize else limit)
    return found


def newest_ids(client: Client, kinds: Iterable[Ids]) -> list[str]:
    """The ids that parts of ids are looked for among, the newest of each kind first."""
    return [
        getattr(record, kind.row).id
        for kind in kinds
        for record in all_rows(client, kind.rpc, kind.request(), kind.rows, LOOKED_THROUGH)
    ]


def refuse_unknown(client: Client, asked: Requests) -> None:
    """For where nothing was found. Raises NotFound if that is since there is no such session, or no such turn."""
    if unknown := what_is_unknown(client, asked):
        raise unknown


def say_nothing_matches(times: Times) -> None:
    """Says on stderr that nothing was found, and within which times."""
    bounds = zip(("since", "before"), times.fields().values(), strict=True)
    within = "".join(f" {word} {show_time(ms)}" for word, ms in bounds if ms is not None)
    err.print(f"nothing matches{within}", style="yellow")


def what_is_unknown(client: Client, asked: Requests) -> NotFound | None:
    """The session or the turn that is asked for, where nothing at all is on record of it."""
    session, turn = asked.session, asked.turn
    if session and not _is_on_record(client, session_id=session):
        return NotFound("the ledger has no session with this id", "session", session)
    if turn and not _is_on_record(client, session_id=session, turn_id=turn):
        where = " in this session" if session else ""
        return NotFound(f"the ledger has no turn with this id{where}", "turn", turn)
    return None


def _is_on_record(client: Client, *, session_id: str, turn_id: str = "") -> bool:
    """Whether there is a row of the turn; without one, of the session, or its own."""
    by_id: dict[str, Any] = {"session_id": session_id, "turn_id": turn_id}
    calls = questions_pb2.ListToolCallsRequest(filter=questions_pb2.ToolCallFilter(**by_id))
    requests = questions_pb2.ListModelRequestsRequest(filter=questions_pb2.ModelRequestFilter(**by_id))
    sessions = questions_pb2.ListSessionRecordsRequest(filter=questions_pb2.SessionFilter(id=session_id))
    return bool(
        (not turn_id and all_rows(client, "ListSessionRecords", sessions, "sessions", 1))
        or all_rows(client, "ListToolCalls", calls, "tool_calls", 1)
        or all_rows(client, "ListModelRequests", requests, "model_requests", 1)
    )


def named_session(source: Source, text: str, hint: str = "SESSION") -> str:
    """The id of the session that text stands for, see service_kit.terminal.ids; empty for a filter's empty text.

    Raises:
        BadParameter: it fits several, or there is none yet; hint names the parameter.
    """
    if is_whole(text):
        return text
    request, found = questions_pb2.ListSessionRecordsRequest(page_size=PAGE), list[str]()
    with connect(source) as client:
        while len(found) < LOOKED_THROUGH and text not in found:
            page = client.call("ListSessionRecords", request, PAGE_SECONDS)
            found += [record.session.id for record in page.sessions]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
    return whole_id(text, found, hint)
