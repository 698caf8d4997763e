"""The tool calls of Claude's program, from its stream: each becomes an event and, with audit, a row.

The program runs its tools itself, so a call's time is observed, not measured: from the line that shows it to the line
with its result.
"""

import time
from dataclasses import dataclass, field, replace

from onrecord.audit.v1 import audit_pb2

from gateway_svc.engines.claude.lines import as_word
from gateway_svc.engines.claude.outcomes import CANCELLED, observed_result
from gateway_svc.engines.claude.record import ClaudeAudit
from gateway_svc.engines.wire.fields import Fields
from gateway_svc.turns.events import tool_call_finished, tool_call_started
from gateway_svc.turns.turn import Turn
from recording.calls import UNKNOWN_TOOL, Scope, ToolCall, ToolResult

MAX_NAME_CHARACTERS = 128
TOOLS = frozenset(
    {
        *("Agent", "Bash", "BashOutput", "Edit", "Glob", "Grep", "KillShell", "NotebookEdit", "Read", "Skill", "Task"),
        *("TodoWrite", "WebFetch", "WebSearch", "Write"),
        *("web_search", "web_fetch", "code_execution", "bash_code_execution", "text_editor_code_execution"),
    }
)
"""The tools that the program always has, by its names for them, and those that the model's server runs itself."""


@dataclass(slots=True)
class _Open:
    call: ToolCall
    intent: audit_pb2.AuditRow
    offered: bool
    started: float = field(default_factory=time.monotonic)


class Calls:
    """The calls of one run."""

    def __init__(self, turn: Turn, scope: Scope, audit: ClaudeAudit | None) -> None:
        self.scope = scope
        """What the rows belong to; its model may be known only once the program names it."""
        self._turn = turn
        self._audit = audit
        self._open: dict[str, _Open] = {}
        self._seen: dict[str, str] = {}
        """The id of each call that was begun, and of the message that last made it. Some servers begin anew with their
        ids in each message."""
        self._held: set[str] = set()
        """Of those that were begun by hold(), the ones that no line has shown yet."""
        self._refused: dict[str, str] = {}
        self._denied: set[str] = set()
        self.offered = TOOLS
        """The names of the program's tools, as far as they are known: any other may be a model's invention."""
        self.stopping = False
        """Whether the program was asked to stop, so that later failures count as cancelled."""

    def begin(self, call: ToolCall, message_id: str) -> bool:
        """The program runs a tool that the model called in this message. False if the call is already known."""
        if call.provider_call_id in self._held:
            self._held.discard(call.provider_call_id)
            self._seen[call.provider_call_id] = message_id
            return True
        if call.provider_call_id in self._open or not self._is_new(call.provider_call_id, message_id):
            return False
        self._begin(call, message_id)
        return True

    def _is_new(self, provider_call_id: str, message_id: str) -> bool:
        before = self._seen.get(provider_call_id)
        return before is None or ("" not in (before, message_id) and before != message_id)

    def _begin(self, call: ToolCall, message_id: str, *, runs: bool = False) -> None:
        self._seen[call.provider_call_id] = message_id
        self._refused.pop(call.provider_call_id, None)
        self._denied.discard(call.provider_call_id)
        offered = runs or call.name in self.offered
        intent = self._intent(call, offered=offered)
        self._open[call.provider_call_id] = _Open(call, intent, offered)
        if self._audit and (refusal := self._audit.intend(intent)):
            self._refused[call.provider_call_id] = refusal
        self._turn.events.put(tool_call_started(intent))

    async def hold(self, call: ToolCall) -> str | None:
        """Waits until a call that the program is about to run is on the record; returns why it must not run, if so."""
        opened = self._open.get(call.provider_call_id)
        if opened is None:
            self._begin(call, "", runs=True)
            self._held.add(call.provider_call_id)
        elif not opened.offered:  # the program only asks for tools that it has, such as those of a late MCP server
            begun, opened.offered = opened.intent.created_at_ms, True
            opened.intent = self._intent(opened.call, offered=True)
            opened.intent.created_at_ms = begun
        refusal = self._refused.get(call.provider_call_id)
        if refusal is None and self._audit:
            refusal = await self._audit.synced()
        if refusal:
            self.deny(call.provider_call_id)
        return refusal

    def _intent(self, call: ToolCall, *, offered: bool) -> audit_pb2.AuditRow:
        if self._audit:
            intent = self._audit.open_call(call, self.scope, offered=offered)
        else:
            intent = _bare_intent(call, offered=offered)
        intent.times_observed = True
        return intent

    @property
    def open(self) -> bool:
        """Whether a call has no result yet."""
        return bool(self._open)

    def deny(self, provider_call_id: str) -> None:
        """The program says that a call has no permission; its result follows."""
        self._denied.add(provider_call_id)

    def finish(self, block: Fields, line: Fields) -> ToolResult | None:
        """A `tool_result` has come; None when it belongs to no open call."""
        provider_call_id = as_word(block.get("tool_use_id"))
        if provider_call_id not in self._open:
            return None
        name = self._open[provider_call_id].call.name
        result = observed_result(name, block, line, denied=provider_call_id in self._denied)
        if self.stopping and block.get("is_error") not in (None, False):
            result = CANCELLED
        self._conclude(self._open.pop(provider_call_id), result)
        return result

    def abandon(self, result: ToolResult) -> None:
        """No more results will come: open calls end with `result`."""
        for opened in self._open.values():
            self._conclude(opened, result)
        self._open.clear()

    def _conclude(self, opened: _Open, result: ToolResult) -> None:
        """Records an ended call, and tells the client. The one place where this engine builds audit rows."""
        duration_ms = round((time.monotonic() - opened.started) * 1000)
        result = replace(result, duration_ms=duration_ms)
        if self._audit:
            row = self._audit.close_call(opened.intent, result)
            self._audit.record(row)
        else:
            row = _bare_row(opened.intent, result)
        self._turn.account.add_tool_call(row)
        self._turn.events.put(tool_call_finished(row))


def _bare_intent(call: ToolCall, *, offered: bool) -> audit_pb2.AuditRow:
    """What a client gets without audit: no arguments, since redaction is not loaded."""
    name = call.name[:MAX_NAME_CHARACTERS] if offered else UNKNOWN_TOOL
    return audit_pb2.AuditRow(id=call.id, tool_name=name, created_at_ms=time.time_ns() // 1_000_000)


def _bare_row(intent: audit_pb2.AuditRow, result: ToolResult) -> audit_pb2.AuditRow:
    row = audit_pb2.AuditRow()
    row.CopyFrom(intent)
    row.outcome, row.duration_ms = result.outcome, result.duration_ms
    row.result_bytes, row.result_truncated = result.result_bytes, result.result_truncated
    for name in ("exit_code", "http_status", "error"):
        if (value := getattr(result, name)) is not None:
            setattr(row, name, value)
    return row
