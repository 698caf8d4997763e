"""The first page: what runs, what today took, whether everything is on the record, and calls as they come."""

import asyncio

from onrecord.audit.v1 import questions_pb2
from onrecord.common.v1 import common_pb2
from starlette.responses import Response

from audit_svc.ledger.steps import DAY_MS, HOUR_MS
from audit_svc.ui.asked import Asked
from audit_svc.ui.pages import checks, figures

HOURS = 24
LIVE_CALLS = 15
RUNNING = 10


async def start(asked: Asked) -> Response:
    """The page. Raises NotAnswered."""
    midnight = asked.now_ms - asked.now_ms % DAY_MS
    first = asked.now_ms - asked.now_ms % HOUR_MS - (HOURS - 1) * HOUR_MS
    running, today, yesterday, hours, findings, calls = await asyncio.gather(
        _running(asked),
        figures.usage(asked, ["outcome"], created_from_ms=midnight),
        figures.usage(asked, ["outcome"], created_from_ms=midnight - DAY_MS, created_before_ms=asked.now_ms - DAY_MS),
        figures.usage(asked, ["hour", "outcome"], created_from_ms=first),
        checks.look(asked),
        _calls(asked),
    )
    return asked.page(
        "start.html",
        running=running,
        today=figures.totals(today),
        yesterday=figures.totals(yesterday),
        chart=figures.calls_by_hour(hours, first, HOURS),
        findings=findings,
        verdict=checks.verdict(findings),
        calls=calls,
    )


async def live(asked: Asked) -> Response:
    """The part of the page that is asked for again and again. Raises NotAnswered."""
    return asked.page("live.html", calls=await _calls(asked))


async def about(asked: Asked) -> Response:
    """What is kept, and what is not."""
    return asked.page("about.html")


async def _running(asked: Asked) -> list[questions_pb2.SessionRecord]:
    wanted = questions_pb2.SessionFilter(
        statuses=[common_pb2.SESSION_STATUS_RUNNING], created_from_ms=asked.now_ms - checks.DAYS * DAY_MS
    )
    request = questions_pb2.ListSessionRecordsRequest(filter=wanted, page_size=RUNNING)
    response: questions_pb2.ListSessionRecordsResponse = await asked.ledger.ask("ListSessionRecords", request)
    return list(response.sessions)


async def _calls(asked: Asked) -> list[questions_pb2.ToolCallRecord]:
    request = questions_pb2.ListToolCallsRequest(page_size=LIVE_CALLS)
    response: questions_pb2.ListToolCallsResponse = await asked.ledger.ask("ListToolCalls", request)
    return list(response.tool_calls)
