"""Calls with texts, and pages of them by the index and by a plain scan."""

from collections.abc import Callable
from functools import partial
from typing import Any

import apsw
from onrecord.audit.v1 import audit_pb2, questions_pb2

from audit_svc.ledger.batch import read_batch
from audit_svc.ledger.clock import SeenClock
from audit_svc.ledger.steps import HOUR_MS
from audit_svc.ledger.usage import Usage
from audit_svc.sqlite.care.prune import Prune
from audit_svc.sqlite.open.connection import transaction
from audit_svc.sqlite.write.inserts import Inserts
from tests.audit_svc import asking
from tests.audit_svc.samples import NOW_MS, audit_row, question, record_request, row_of
from tests.support.pages import pages

Request = questions_pb2.ListToolCallsRequest
BEGIN = NOW_MS - NOW_MS % HOUR_MS - 10 * HOUR_MS


def write(connection: apsw.Connection, *rows: audit_pb2.AuditRow) -> None:
    accepted = read_batch(record_request(tool_calls=rows), NOW_MS)
    assert not accepted.rejections
    with transaction(connection):
        Inserts(connection).write([(accepted, Usage(accepted.tool_calls, accepted.model_requests))], NOW_MS)


def plain(connection: apsw.Connection, text: str, keep: Callable[[Any], bool] = lambda row: True) -> list[str]:
    """The ids of the rows that have text, looked for in all of them by Python, in the listing's order.

    keep: what else must hold of (id, args_summary, created_at, tool_name).
    """
    rows = connection.execute(
        "SELECT id, args_summary, created_at, tool_name FROM tool_call_log ORDER BY created_at DESC, position DESC"
    )
    wanted = lower(text)
    return [str(row[0]) for row in rows if wanted in lower(str(row[1])) and keep(row)]


def lower(text: str) -> str:
    """In ASCII alone: É and the Kelvin sign stay what they are."""
    return "".join(chr(ord(one) + 32) if "A" <= one <= "Z" else one for one in text)


def listed(connection: apsw.Connection, size: int, **filters: Any) -> list[str]:
    """The ids of all pages."""
    listed = pages(partial(asking.list_tool_calls, connection), question(Request, **filters, page_size=size))
    return [row_of(one).id for page in listed for one in page.tool_calls]


def call(number: int) -> audit_pb2.AuditRow:
    summary = "path: Needle" if number % 300 == 7 else f"path: file-{number % 10}"
    return audit_row(id=f"{number:04}", args_summary=summary, created_at_ms=BEGIN + number * 10_000)


def prune_all(connection: apsw.Connection, before_ms: int) -> None:
    prune = Prune(before_ms, "ada", SeenClock(None))
    done = False
    while not done:
        with transaction(connection):
            done = prune.step(connection).done
