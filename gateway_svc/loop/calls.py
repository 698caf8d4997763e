"""The tool calls of a step: each is decided on, recorded before it runs, run, and recorded when it has ended."""

import asyncio
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from gateway_svc.loop.answers import Answers
from gateway_svc.loop.asking import ask
from gateway_svc.loop.dry_run import DryRunToolbox, ShadowLogger
from gateway_svc.loop.stopped_calls import stopped_call
from gateway_svc.messages import Message, ToolMessage
from gateway_svc.stopping.turns import CallStopped
from gateway_svc.tools import ToolContext
from gateway_svc.tools.files import Files
from gateway_svc.tools.ruling import Ruling
from gateway_svc.tools.toolbox import Toolbox, denied
from gateway_svc.turns.events import tool_call_finished, tool_call_started
from gateway_svc.turns.turn import Turn
from recording.args_key import ArgsKey
from recording.calls import NOT_RECORDED, UNDECIDED, ToolCall, ToolResult
from recording.logger import AuditLogger, safe_audit, safe_intend, safe_synced
from recording.rows import close_call, decide, open_call

CANCELLED = ToolResult("The call was cancelled.", common_pb2.OUTCOME_CANCELLED, "cancelled")

Append = Callable[[Message], None]
"""Adds a message to what the model reads next."""


class CallRunner:
    """Runs the tool calls of an agent's steps."""

    def __init__(
        self,
        toolbox: Toolbox,
        files: Files,
        logger: AuditLogger,
        answers: Answers,
        most_at_once: int,
        args_key: ArgsKey | None = None,
    ) -> None:
        """most_at_once: how many calls of one step run in parallel. args_key: makes the digests of arguments."""
        self._own_toolbox = toolbox
        self._toolbox: Toolbox | DryRunToolbox = toolbox
        self._files = files
        self._logger = logger
        self._answers = answers
        self._most_at_once = most_at_once
        self._args_key = args_key

    async def run(self, turn: Turn, calls: Sequence[ToolCall], append: Append) -> None:
        """Runs calls in parallel, and appends their results in the order of the calls, however this ends."""
        results: dict[str, ToolResult] = {}
        places = asyncio.Semaphore(self._most_at_once)
        try:
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    group.create_task(self._run_one(turn, call, results, places))
        finally:
            for call in calls:
                if call.id not in results:  # cancelled while it waited for a slot: it still has its row
                    decide(intent := self._open(turn, call), UNDECIDED)
                    stop = turn.stops.stop
                    results[call.id] = stopped_call(stop, intent, ran=False) if stop else _cancelled(turn)
                    self._conclude(turn, intent, results[call.id])
                append(ToolMessage(call.provider_call_id, call.name, results[call.id].text))

    def refuse(self, turn: Turn, calls: Sequence[ToolCall], result: ToolResult, append: Append) -> None:
        """Records calls of which none may run, and tells the model why."""
        for call in calls:
            decide(intent := self._open(turn, call), UNDECIDED)
            turn.events.put(tool_call_started(intent))
            self._conclude(turn, intent, result)
            append(ToolMessage(call.provider_call_id, call.name, result.text))

    def in_shadow(self, done: Sequence[Message]) -> "CallRunner":
        """One that runs no tool. It answers as the messages `done` do."""
        shadow = copy(self)
        shadow._toolbox = DryRunToolbox(self._own_toolbox, done)
        shadow._logger = ShadowLogger(self._logger)
        return shadow

    async def _run_one(
        self, turn: Turn, call: ToolCall, results: dict[str, ToolResult], places: asyncio.Semaphore
    ) -> None:
        async with places:
            intent, started = self._open(turn, call), time.monotonic()
            ruling = self._toolbox.stopped_by(turn.stops, call) or self._toolbox.rule_on(call, turn.scope, turn.labels)
            decide(intent, ruling.decision)
            intent.unconfined = self._toolbox.is_unconfined(call.name)
            asks = ruling.policy == "ask" and self._toolbox.check(call) is None
            if not asks:
                turn.events.put(tool_call_started(intent))
            result, cancelled = CANCELLED, True
            try:
                with turn.stops.call(call.name) as running:
                    refused = await self._refusal(turn, intent, ruling, asks=asks)
                    if refused is None:
                        running.runs = True
                        turn.account.begin_tool_call(intent.id)
                    result = refused or await self._toolbox.run(call, ToolContext(self._files, turn.scope))
                cancelled = False
            except CallStopped as stopped:
                result, cancelled = stopped_call(stopped.stop, intent, ran=stopped.ran), False
            except asyncio.CancelledError:
                result = _cancelled(turn)
                if turn.stops.stop is not None:
                    result = stopped_call(turn.stops.stop, intent, ran=running.runs)
                raise
            finally:
                if result.outcome == common_pb2.OUTCOME_INVALID_CALL:  # it never came so far
                    decide(intent, UNDECIDED)
                intent.unconfined &= running.runs and result.outcome != common_pb2.OUTCOME_INVALID_CALL
                # How long it waited to run is in its decision.
                elapsed_ms = round((time.monotonic() - started) * 1000) if running.runs else 0
                results[call.id] = result if result.started_at_ms else replace(result, duration_ms=elapsed_ms)
                row = self._record(intent, results[call.id])
                try:
                    if not cancelled:
                        await safe_synced(self._logger)
                finally:
                    _tell(turn, row)

    async def _refusal(
        self, turn: Turn, intent: audit_pb2.AuditRow, ruling: Ruling, *, asks: bool
    ) -> ToolResult | None:
        """What the model is told of a call that may not run: by a person, by a rule, or because it cannot be recorded.
        None of one that may, whose intent is on the record.
        """
        if asks and (refused := await ask(self._answers, self._logger, turn, intent, ruling.decision)):
            return refused
        if ruling.told:
            error = ruling.error or f"the rule {ruling.decision.rule} does not allow the call"
            return denied(error, told=ruling.told)
        if refusal := safe_intend(self._logger, intent) or await safe_synced(self._logger):
            decide(intent, NOT_RECORDED)
            return denied(refusal)
        return None

    def _open(self, turn: Turn, call: ToolCall) -> audit_pb2.AuditRow:
        """The intent of a call. The one place where the loop opens audit rows."""
        parameters = self._own_toolbox.parameters(call.name)
        return open_call(
            call,
            turn.scope,
            offered=parameters is not None,
            parameters=parameters,
            key=self._args_key,
            mcp_server=self._own_toolbox.mcp_server(call.name),
        )

    def _conclude(self, turn: Turn, intent: audit_pb2.AuditRow, result: ToolResult) -> None:
        """Records a call that did not run, and tells the client."""
        _tell(turn, self._record(intent, result))

    def _record(self, intent: audit_pb2.AuditRow, result: ToolResult) -> audit_pb2.AuditRow:
        """Records an ended call. The one place where the loop closes audit rows."""
        row = close_call(intent, result)
        safe_audit(self._logger, row)
        return row


def _cancelled(turn: Turn) -> ToolResult:
    """Of a call that is cancelled with its turn, and not by a stop."""
    return replace(CANCELLED, error=turn.stops.why_cancelled)


def _tell(turn: Turn, row: audit_pb2.AuditRow) -> None:
    """Tells the client how a call ended."""
    turn.account.add_tool_call(row)
    turn.events.put(tool_call_finished(row))
