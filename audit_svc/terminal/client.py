"""The ledger that a command asks: a running service, or a file."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from google.protobuf.message import Message
from onrecord.audit.v1 import questions_pb2

from audit_svc.terminal.options import Source
from audit_svc.terminal.running import error_is_exit_code_1, ledger_path, progress, refuse_both
from service_kit.terminal.ids import is_whole, whole_id

PAGE = 1000
PAGE_SECONDS = 30.0
LOOKED_THROUGH = 10_000
"""The newest sessions, among which a part of an id is looked for."""


class Client(Protocol):
    """Answers the RPCs that ask a ledger, by their names."""

    def call(self, rpc: str, request: Message, timeout: float | None = None) -> Any:
        """The response of a unary RPC, an iterator of those of a stream. timeout is in seconds."""
        ...


@contextmanager
def connect(source: Source) -> Iterator[Client]:
    """A client of source. A failure in the body ends the program with a sentence and exit code 1."""
    refuse_both(source.db, source.target)
    with error_is_exit_code_1():
        if source.db is None:
            from audit_svc.terminal.service import answers_are_exit_code_1, open_service  # who reads a file needs none

            with answers_are_exit_code_1(source.address), open_service(source.address) as service:
                yield service
        else:
            from audit_svc.terminal.file import open_file

            with open_file(ledger_path(source.db)) as file:
                yield file


def listed(source: Source, rpc: str, request: Any, rows: str, limit: int = sys.maxsize) -> list[Any]:
    """Up to limit rows of a paged RPC, over as many pages as it takes; rows is their field."""
    with connect(source) as client, progress("asking") as tell:
        return all_rows(client, rpc, request, rows, limit, tell)


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


def named_session(source: Source, text: str, hint: str = "SESSION") -> str:
    """The id of the session that text stands for, see service_kit.terminal.ids.

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
