"""Whether everything is on the record: what speaks for it and against it. What nobody tells is never taken as good."""

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

import grpc
from onrecord.audit.v1 import audit_pb2, proof_pb2, questions_pb2

from audit_svc.ledger.steps import DAY_MS
from audit_svc.ui.asked import Asked
from audit_svc.ui.remote import NOT_SEALED, NotAnswered
from audit_svc.ui.texts import link

State = Literal["yes", "no", "not known"]
LOST_ROWS = "onrecord.gap"
"""The tool's name in the row of a producer that lost rows."""
DAYS = 7
NEWEST = 50
TOLD = 100
"""Producers that a page looks at."""
_BESIDE = ("stops in force", "earlier rules are in force", "commands run", "commands are confined")
"""How those parts of what a gateway's health says begin that are not about its record. Any other speaks against it."""
SEALED_WITHIN_MS = 60_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    told: str
    href: str = ""


async def look(asked: Asked) -> list[Finding]:
    """All findings. Raises NotAnswered."""
    return list(
        await asyncio.gather(_ledger(asked), _gateway(asked), _lost(asked), _clock(asked), _holes(asked), _seal(asked))
    )


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
    against = [part for part in said.split("; ") if part and not part.startswith(_BESIDE)]
    if not serves or against:
        return Finding(what, "no", "; ".join(against) or said or "it does not serve")
    return Finding(what, "yes", f"it serves; beside that: {said}" if said else "it serves, and says nothing against it")


async def _lost(asked: Asked) -> Finding:
    rows = await _calls(asked, 1, tool_name=LOST_ROWS, created_from_ms=asked.now_ms - DAYS * DAY_MS)
    what = f"No producer has lost rows in {DAYS} days"
    if not rows:
        return Finding(what, "yes", "none has said so")
    newest = rows[0].tool_call
    told = f"the last to say so: {newest.error or newest.args_summary}"
    return Finding(what, "no", told, link("/sessions", tool=LOST_ROWS, since=f"{DAYS}d"))


async def _clock(asked: Asked) -> Finding:
    rows = await _calls(asked, 1, clock_suspect=True, created_from_ms=asked.now_ms - DAYS * DAY_MS)
    what = f"The clocks agree in {DAYS} days"
    if not rows:
        return Finding(what, "yes", "no row has a time that the ledger's clock contradicts")
    session = rows[0].tool_call.session_id
    return Finding(what, "no", "a row has a time that the ledger's clock contradicts", link("/session", id=session))


async def _holes(asked: Asked) -> Finding:
    """What producers numbered and never came, or was refused for good."""
    found = await producers(asked, TOLD, is_whole=False)
    what = "Nothing is missing of what producers numbered, and nothing was refused"
    if not found:
        return Finding(what, "yes", "all numbers have come, and all rows were taken")
    missing, refused = sum(each.missing for each in found), sum(each.refused_rows for each in found)
    more = "at least " if len(found) == TOLD else ""
    told = f"{more}{missing:,} numbers never came, and {refused:,} rows were refused, of {len(found)} producers"
    return Finding(what, "no", told, "/health#producers")


async def producers(asked: Asked, size: int, **conditions: Any) -> list[questions_pb2.Producer]:
    """The first producers that meet the conditions. Raises NotAnswered."""
    request = questions_pb2.ListProducersRequest(page_size=size, filter=questions_pb2.ProducerFilter(**conditions))
    response: questions_pb2.ListProducersResponse = await asked.ledger.ask("ListProducers", request)
    return list(response.producers)


async def _seal(asked: Asked) -> Finding:
    """Has the proof of a call that was committed a while ago, and so of all that were sealed before it; where there is
    none, of the newest call.
    """
    what = "What was recorded is sealed"
    before_ms = asked.now_ms - SEALED_WITHIN_MS
    settled = await _calls(asked, NEWEST, created_before_ms=before_ms)
    record = next(
        (each for each in settled if each.receipt.recorded_at_ms < before_ms and not each.receipt.erased), None
    )
    is_settled = record is not None
    record = record or next(iter(await _calls(asked, 1)), None)
    try:
        if record is None:
            await asked.ledger.ask("GetCheckpoint", proof_pb2.GetCheckpointRequest())
            return Finding(what, "yes", "the log is signed, and there is no call")
        key = questions_pb2.RowKey(id=record.tool_call.id, recorded_by=record.receipt.recorded_by)
        request = proof_pb2.GetProofRequest(kind=audit_pb2.ROW_KIND_TOOL_CALL, row=key)
        await asked.ledger.ask("GetProof", request)
    except NotAnswered as failed:
        is_overdue = failed.reason == NOT_SEALED and is_settled
        is_told = failed.code in {grpc.StatusCode.DATA_LOSS, grpc.StatusCode.NOT_FOUND} or is_overdue
        return Finding(what, "no" if is_told else "not known", failed.details)
    which = "the newest call that was committed more than a minute ago" if is_settled else "the newest call"
    return Finding(what, "yes", f"{which} has its proof")


async def _calls(asked: Asked, size: int, **conditions: Any) -> list[questions_pb2.ToolCallRecord]:
    """The newest calls that meet the conditions. Raises NotAnswered."""
    wanted = questions_pb2.ToolCallFilter(**conditions)
    request = questions_pb2.ListToolCallsRequest(filter=wanted, page_size=size)
    response: questions_pb2.ListToolCallsResponse = await asked.ledger.ask("ListToolCalls", request)
    return list(response.tool_calls)
