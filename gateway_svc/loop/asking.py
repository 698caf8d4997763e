"""Asks whether a call may run, and puts the question, its answer and the wait into the call's row."""

import time
from dataclasses import replace

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from gateway_svc.loop.answers import OVERTAKEN, Answers
from gateway_svc.tools.toolbox import denied
from gateway_svc.turns.events import tool_call_started
from gateway_svc.turns.turn import Turn
from recording.calls import NOT_RECORDED, Decision, ToolResult
from recording.logger import AuditLogger, safe_intend, safe_synced
from recording.rows import decide


async def ask(
    answers: Answers, logger: AuditLogger, turn: Turn, intent: audit_pb2.AuditRow, asked: Decision
) -> ToolResult | None:
    """Asks, and returns the result of a call that was refused, or None if it may run.

    asked: what had the call ask. The intent is on the record before anybody is asked, and says that the call waits; at
    the end it says how long, and who answered.
    """
    with answers.expect(intent, turn.owner) as pending:
        turn.events.put(tool_call_started(intent, pending.expires_at_ms))
        if refusal := safe_intend(logger, intent) or await safe_synced(logger):
            decide(intent, NOT_RECORDED)
            return denied(refusal)
        started, decision = time.monotonic(), asked
        try:
            answer = await pending.answer()
            if answer is None:
                decision = replace(
                    asked, source=_DEPLOYMENT, verdict=common_pb2.VERDICT_DENIED, rule=asked.rule or "no_answer"
                )
            elif answer is OVERTAKEN:
                decision = replace(
                    asked,
                    source=_DEPLOYMENT,
                    verdict=common_pb2.VERDICT_DENIED,
                    rule="policy_changed",
                    reason=answer.reason,
                )
            else:
                decision = replace(
                    asked,
                    source=common_pb2.DECISION_SOURCE_PERSON,
                    verdict=common_pb2.VERDICT_ALLOWED if answer.allow else common_pb2.VERDICT_DENIED,
                    decided_by=answer.by,
                    decided_at_ms=answer.at_ms,
                    reason=answer.reason or asked.reason,
                )
        finally:
            decide(intent, replace(decision, waited_ms=round((time.monotonic() - started) * 1000)))
    if answer is None:
        return denied(f"The call was refused: nobody answered within {answers.seconds:g} seconds.")
    told = f"The call was refused. {answer.reason}".strip()
    return None if answer.allow else denied("The call was refused.", told=told)


_DEPLOYMENT = common_pb2.DECISION_SOURCE_CONFIGURATION
