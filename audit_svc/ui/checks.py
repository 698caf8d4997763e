"""Whether everything is on the record: what speaks for it and against it. What nobody tells is never taken as good."""

import asyncio
from dataclasses import dataclass
from typing import Literal

from onrecord.audit.v1 import questions_pb2

from audit_svc.ui.asked import Asked
from audit_svc.ui.figures import DAY_MS
from audit_svc.ui.texts import link

State = Literal["yes", "no", "not known"]
LOST_ROWS = "onrecord.gap"
"""The tool's name in the row of a producer that lost rows."""
DAYS = 7


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    told: str
    href: str = ""


async def look(asked: Asked) -> list[Finding]:
    """All findings. Raises NotAnswered."""
    return list(await asyncio.gather(_ledger(asked), _gateway(asked), _lost(asked), _clock(asked)))


def verdict(findings: list[Finding]) -> State:
    """Yes where all are, no where one is, and else not known."""
    states = {finding.state for finding in findings}
    return "no" if "no" in states else "not known" if "not known" in states else "yes"


async def _ledger(asked: Asked) -> Finding:
    serves, said = await asked.ledger.health()
    told = said or ("it serves" if serves else "it does not serve")
    return Finding("The ledger takes rows", "yes" if serves else "no", told)


async def _gateway(asked: Asked) -> Finding:
    what = "The gateway can put its rows on disk"
    if asked.gateway is None:
        return Finding(what, "not known", "no gateway is named: start audit-svc ui with --gateway host:port")
    serves, said = await asked.gateway.health()
    state: State = "yes" if serves and not said else "no"
    return Finding(what, state, said or ("it serves, and nothing waits" if serves else "it does not serve"))


async def _lost(asked: Asked) -> Finding:
    rows = await _calls(asked, tool_name=LOST_ROWS, created_from_ms=asked.now_ms - DAYS * DAY_MS)
    what = f"No producer has lost rows in {DAYS} days"
    if not rows:
        return Finding(what, "yes", "none has said so")
    newest = rows[0].tool_call
    told = f"the last to say so: {newest.error or newest.args_summary}"
    return Finding(what, "no", told, link("/sessions", tool=LOST_ROWS, since=f"{DAYS}d"))


async def _clock(asked: Asked) -> Finding:
    rows = await _calls(asked, clock_suspect=True, created_from_ms=asked.now_ms - DAYS * DAY_MS)
    what = f"The clocks agree in {DAYS} days"
    if not rows:
        return Finding(what, "yes", "no row has a time that the ledger's clock contradicts")
    session = rows[0].tool_call.session_id
    return Finding(what, "no", "a row has a time that the ledger's clock contradicts", link("/session", id=session))


async def _calls(asked: Asked, **conditions: object) -> list[questions_pb2.ToolCallRecord]:
    """The newest call that meets them, if there is one."""
    wanted = questions_pb2.ToolCallFilter(**conditions)  # type: ignore[arg-type]
    request = questions_pb2.ListToolCallsRequest(filter=wanted, page_size=1)
    response: questions_pb2.ListToolCallsResponse = await asked.ledger.ask("ListToolCalls", request)
    return list(response.tool_calls)
