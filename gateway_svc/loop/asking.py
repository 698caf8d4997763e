"""Asks whether a call may run, and puts the question, its answer and the wait into the call's row."""

import time
from dataclasses import replace

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from gateway_svc.loop.answers import Answers
from gateway_svc.tools.toolbox import denied
from recording.calls import Decision, ToolCall, ToolResult
from recording.rows import decide

_VERDICTS = {True: common_pb2.VERDICT_ALLOWED, False: common_pb2.VERDICT_DENIED}


async def ask(answers: Answers, call: ToolCall, intent: audit_pb2.AuditRow, asked: Decision) -> ToolResult | None:
    """The result of a call that was refused, or None if it may run.

    asked: what had the call ask. The intent says it until somebody answers, and how long the call waited.
    """
    started, decision = time.monotonic(), asked
    try:
        answer = await answers.wait_for(call.id)
        if answer is None:
            source = common_pb2.DECISION_SOURCE_CONFIGURATION
            decision = replace(asked, source=source, verdict=common_pb2.VERDICT_DENIED, rule="no_answer")
        else:
            decision = replace(
                asked,
                source=common_pb2.DECISION_SOURCE_PERSON,
                verdict=_VERDICTS[answer.allow],
                decided_by=answer.by,
                decided_at_ms=answer.at_ms,
                reason=answer.reason,
            )
    finally:
        decide(intent, replace(decision, waited_ms=round((time.monotonic() - started) * 1000)))
    if answer is None:
        return denied(f"The call was refused: nobody answered within {answers.seconds:g} seconds.")
    told = f"The call was refused. {answer.reason}".strip()
    return None if answer.allow else denied("The call was refused.", told=told)
