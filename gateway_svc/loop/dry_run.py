"""Tools for a shadow: nothing runs. A call that the turn also made gets the turn's result, so that engines can be
compared under the same conditions; any other gets a note that this is a dry run.
"""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from gateway_svc.messages import AssistantMessage, Message, ToolMessage
from gateway_svc.stopping.turns import StoppableTurn
from gateway_svc.tools import ToolContext
from gateway_svc.tools.ruling import Ruling
from gateway_svc.tools.toolbox import Toolbox
from recording.calls import UNDECIDED, Scope, ToolCall, ToolResult
from recording.logger import AuditLogger, Row
from recording.redact import summarize_args

DRY_RUN = "(This is a dry run: the tool was not run. Go on as if it had done its work.)"


class DryRunToolbox:
    """A stand-in for Toolbox."""

    def __init__(self, toolbox: Toolbox, done: Sequence[Message]) -> None:
        """`done` are the messages that the turn added to the conversation."""
        self._toolbox = toolbox
        self._results: dict[tuple[str, str], deque[str]] = defaultdict(deque)
        texts = {message.provider_call_id: message.text for message in done if isinstance(message, ToolMessage)}
        for message in done:
            for call in message.tool_calls if isinstance(message, AssistantMessage) else ():
                if call.provider_call_id in texts:
                    self._results[_key(call)].append(texts[call.provider_call_id])

    def stopped_by(self, stops: StoppableTurn, call: ToolCall) -> Ruling | None:
        """Nothing runs, so no stop of its tool is asked."""
        return None

    def rule_on(self, call: ToolCall, scope: Scope, labels: Mapping[str, str]) -> Ruling:
        """Nothing runs, so nothing is decided and nobody is asked."""
        return Ruling("allow", UNDECIDED)

    def is_unconfined(self, name: str) -> bool:
        """Nothing runs."""
        return False

    def check(self, call: ToolCall) -> ToolResult | None:
        """Why the call would be refused; None if it would run."""
        return self._toolbox.check(call)

    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Runs nothing. Repeated calls get the turn's results one after another, then the last one again."""
        if (refused := self._toolbox.check(call)) is not None:
            return refused
        results = self._results.get(_key(call))
        text = DRY_RUN if not results else results.popleft() if len(results) > 1 else results[0]
        return ToolResult(text, common_pb2.OUTCOME_DRY_RUN)


class ShadowLogger:
    """Marks the rows of a shadow (the AuditLogger protocol)."""

    def __init__(self, logger: AuditLogger) -> None:
        self._logger = logger

    def intend(self, row: audit_pb2.AuditRow) -> None:
        """Does nothing: no tool will run."""

    def record(self, row: Row) -> None:
        """Records the row, marked as a shadow's."""
        if isinstance(row, audit_pb2.AuditRow | audit_pb2.CostRow):
            row.shadow = True
        self._logger.record(row)

    async def synced(self) -> None:
        """Delegates to the turn's own logger."""
        await self._logger.synced()


def _key(call: ToolCall) -> tuple[str, str]:
    return call.name, summarize_args(call.name, call.arguments, kept="shown")  # told apart here, not kept
