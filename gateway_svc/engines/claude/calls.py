"""The tool calls of Claude's program, from its stream: each becomes an event and, with audit, a row.

The program runs its tools itself, so a call's time is observed, not measured: from the line that shows it to the line
with its result.

Some servers give two calls of one message the same id. A call may also be told by several lines: by the model's stream,
by its own line, once more by that, and by the question whether it may run. So of what one of these tells under an id,
what has another name or other arguments is another call, and the first call of one is the first call of the others. Two
calls that are the same in all of this count as one. Results belong to the calls with their id in the order of both.
"""

import time
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import control_pb2

from gateway_svc.engines.claude.lines import as_id
from gateway_svc.engines.claude.outcomes import CANCELLED, observed_result
from gateway_svc.engines.claude.record import ClaudeAudit
from gateway_svc.engines.wire.fields import Fields
from gateway_svc.stopping.stop import ended as ended_by
from gateway_svc.stopping.turns import RunningCall
from gateway_svc.turns.events import tool_call_finished, tool_call_started
from gateway_svc.turns.turn import Turn
from recording.calls import AGENT_OWN, NOT_RECORDED, UNDECIDED, UNKNOWN_TOOL, Decision, Scope, ToolCall, ToolResult
from service_kit.bounds import PROGRAM_CALLS
from service_kit.producing.stop import decision as stop_decision
from service_kit.producing.stop import told as stop_told
from service_kit.producing.stop import why_denied
from service_kit.time_slice import TimeSlice

MAX_NAME_CHARACTERS = 128
TOOLS = frozenset(
    {
        *("web_search", "web_fetch", "code_execution", "bash_code_execution", "text_editor_code_execution"),
        *("Agent", "Bash", "BashOutput", "Edit", "Glob", "Grep", "KillShell", "NotebookEdit", "Read", "Skill", "Task"),
        *("TodoWrite", "WebFetch", "WebSearch", "Write"),
    }
)
"""The tools that the program always has, by its names for them; first those that the model's server runs itself."""

NO_PERMISSION = replace(AGENT_OWN, verdict=common_pb2.VERDICT_DENIED)
"""Of a call that the program's own permissions refused."""

Teller = Literal["stream", "line", "question"]


@dataclass(slots=True)
class _Open:
    call: ToolCall
    intent: audit_pb2.AuditRow
    offered: bool
    refusal: str | None = None
    """Why it must not run."""
    stop: control_pb2.Stop | None = None
    """The stop that it must not run for."""
    running: RunningCall | None = None
    """What stops know of it."""
    unrecorded: bool = False
    """Whether it must not run since it cannot be recorded."""
    denied: bool = False
    """Whether the program says that it has no permission."""
    started: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class _Told:
    """What is told of the calls of one message under one id."""

    message_id: str
    """Empty while only a question has told of them."""
    told: dict[Teller, list[tuple[str, str]]] = field(default_factory=dict)
    """Names and arguments, in the order in which each told them first."""
    begun: list[_Open] = field(default_factory=list)
    shown: int = 0
    """How many the stream or lines have told."""

    def place(self, call: ToolCall, teller: Teller) -> int:
        """Which of the calls it is."""
        known = self.told.setdefault(teller, [])
        key = call.name, call.arguments
        if key not in known:
            known.append(key)
        return known.index(key)


class Calls:
    """The calls of one run."""

    def __init__(self, turn: Turn, scope: Scope, audit: ClaudeAudit | None) -> None:
        self.scope = scope
        """What the rows belong to; its model may be known only once the program names it."""
        self._turn = turn
        self._audit = audit
        self._open: dict[str, list[_Open]] = {}
        """By the program's ids, the oldest first."""
        self._begun = 0
        self._told: dict[str, _Told] = {}
        """Of the last message with an id. Some servers begin anew with their ids in each message."""
        self.offered = TOOLS
        """The names of the program's tools, as far as they are known: any other may be a model's invention."""
        self.stopping = False
        """Whether the program was asked to stop, so that later failures count as cancelled."""

    def begin(self, call: ToolCall, message_id: str, teller: Literal["stream", "line"], *, elsewhere: bool) -> bool:
        """The program runs a tool that the model called in this message. False if that was shown already.

        elsewhere: the model's server runs it, and nobody is asked first.
        """
        told = self._told.get(call.provider_call_id)
        is_open = call.provider_call_id in self._open
        if told is None or (not is_open and "" not in (told.message_id, message_id) and told.message_id != message_id):
            told = self._told[call.provider_call_id] = _Told(message_id)
        told.message_id = told.message_id or message_id
        place = told.place(call, teller)
        if place == len(told.begun):
            self._begin(call, told, elsewhere=elsewhere)
        is_new = place >= told.shown
        told.shown = max(told.shown, place + 1)
        return is_new

    def _begin(self, call: ToolCall, told: _Told, *, runs: bool = False, elsewhere: bool = False) -> None:
        self._begun += 1
        PROGRAM_CALLS.check(self._begun)
        offered = runs or call.name in self.offered
        opened = _Open(call, self._intent(call, offered=offered), offered)
        told.begun.append(opened)
        self._open.setdefault(call.provider_call_id, []).append(opened)
        asks = self._audit is not None and not elsewhere
        opened.running = self._turn.stops.begin_call(call.name, runs=not asks)
        if stop := self._turn.stops.stop_of(call.name):
            if not asks:
                self._turn.stops.halt(stop)
            opened.stop = stop
        if self._audit:
            opened.refusal = self._audit.intend(opened.intent)
            self._turn.account.begin_tool_call(opened.intent.id)
        self._turn.events.put(tool_call_started(opened.intent))

    async def hold(self, call: ToolCall) -> str | None:
        """Waits until a call that the program is about to run is on the record; returns why it must not run, if so."""
        told = self._told.get(call.provider_call_id)
        if told is None or call.provider_call_id not in self._open:
            told = self._told[call.provider_call_id] = _Told("")
        place = told.place(call, "question")
        if place == len(told.begun):
            self._begin(call, told, runs=True)
        opened = told.begun[place]
        if not opened.offered:  # the program only asks for tools that it has, such as those of a late MCP server
            begun, opened.offered = opened.intent.created_at_ms, True
            opened.intent = self._intent(opened.call, offered=True)
            opened.intent.created_at_ms = begun
        if opened.stop is None:  # it may have come since the call was shown
            opened.stop = self._turn.stops.stop_of(call.name)
        if opened.stop is not None:
            opened.denied = True
            return stop_told(opened.stop)
        refusal = opened.refusal
        if refusal is None and self._audit:
            refusal = await self._audit.synced()
            if stop := self._turn.stops.stop_of(call.name):
                opened.stop, opened.denied = stop, True
                return stop_told(stop)
        if refusal:
            opened.denied = opened.unrecorded = True
        elif opened.running:
            opened.running.runs = True
        return refusal

    def _intent(self, call: ToolCall, *, offered: bool) -> audit_pb2.AuditRow:
        if self._audit:
            intent = self._audit.open_call(call, self.scope, offered=offered, mcp_server=(_mcp_server(call.name), ""))
            self._audit.decide(intent, AGENT_OWN)
        else:
            intent = _bare_intent(call, offered=offered)
        intent.times_observed = True
        return intent

    def name_agent(self, agent: tuple[str, str]) -> None:
        """What makes the calls, by the program's own word, where the client has said nothing."""
        if not self.scope.agent[0]:
            self.scope = replace(self.scope, agent=agent)
            self._turn.stops.become(agent=agent[0])

    @property
    def open(self) -> bool:
        """Whether a call has no result yet."""
        return bool(self._open)

    def deny(self, provider_call_id: str) -> None:
        """The program says that a call has no permission; its result follows."""
        for opened in self._open.get(provider_call_id, ()):
            if not opened.denied:
                opened.denied = True
                return

    def finish(self, block: Fields, line: Fields) -> ToolResult | None:
        """A `tool_result` has come; None when it belongs to no open call."""
        provider_call_id = as_id(block.get("tool_use_id"))
        if provider_call_id not in self._open:
            return None
        opened, *others = self._open.pop(provider_call_id)
        if others:
            self._open[provider_call_id] = others
        result = observed_result(opened.call.name, block, line, denied=opened.denied)
        if self.stopping and block.get("is_error") not in (None, False):
            result = CANCELLED
        self._conclude(opened, result)
        return result

    async def abandon(self, result: ToolResult) -> None:
        """No more results will come: open calls end with `result`."""
        left = [*chain.from_iterable(self._open.values())]
        self._open.clear()
        time_slice = TimeSlice()
        for opened in left:
            self._conclude(opened, result)
            if time_slice.is_over():
                await time_slice.give_way()

    def _conclude(self, opened: _Open, result: ToolResult) -> None:
        """Records an ended call, and tells the client. The one place where this engine builds audit rows."""
        if opened.running:
            self._turn.stops.end_call(opened.running)
        if result is CANCELLED:
            stop = self._turn.stops.stop
            error = self._turn.stops.why_cancelled
            result = self._stopped(opened, stop) if stop else replace(CANCELLED, error=error)
        duration_ms = round((time.monotonic() - opened.started) * 1000)
        result = replace(result, duration_ms=duration_ms)
        if self._audit:
            if result.outcome == common_pb2.OUTCOME_INVALID_CALL:
                self._audit.decide(opened.intent, UNDECIDED)
            elif result.outcome == common_pb2.OUTCOME_DENIED:
                self._audit.decide(opened.intent, _refused_by(opened))
            row = self._audit.close_call(opened.intent, result)
            self._audit.record(row)
        else:
            row = _bare_row(opened.intent, result)
        self._turn.account.add_tool_call(row)
        self._turn.events.put(tool_call_finished(row))

    def _stopped(self, opened: _Open, stop: control_pb2.Stop) -> ToolResult:
        """The result of a call that a stop has ended with its turn, or refused since it had not begun."""
        if opened.running is None or opened.running.runs:
            return replace(CANCELLED, error=ended_by(stop))
        opened.stop = opened.stop or stop
        return ToolResult(CANCELLED.text, common_pb2.OUTCOME_DENIED, why_denied(opened.stop))


def _refused_by(opened: _Open) -> Decision:
    if opened.stop is not None:
        return stop_decision(opened.stop)
    return NOT_RECORDED if opened.unrecorded else NO_PERMISSION


def _mcp_server(name: str) -> str:
    """The MCP server that has a tool of the program, by the program's name for it: mcp__server__tool."""
    return name.split("__")[1] if name.startswith("mcp__") and name.count("__") > 1 else ""


def _bare_intent(call: ToolCall, *, offered: bool) -> audit_pb2.AuditRow:
    """What a client gets without audit: no arguments, since redaction is not loaded."""
    name = call.name[:MAX_NAME_CHARACTERS] if offered else UNKNOWN_TOOL
    return audit_pb2.AuditRow(id=call.id, tool_name=name, created_at_ms=time.time_ns() // 1_000_000)


def _bare_row(intent: audit_pb2.AuditRow, result: ToolResult) -> audit_pb2.AuditRow:
    row = audit_pb2.AuditRow()
    row.CopyFrom(intent)
    row.outcome, row.duration_ms = result.outcome, result.duration_ms
    row.result_truncated = result.result_truncated
    for name in ("result_bytes", "exit_code", "http_status", "error"):
        if (value := getattr(result, name)) is not None:
            setattr(row, name, value)
    return row
