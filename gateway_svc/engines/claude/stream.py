"""Handles the lines that Claude's program writes in one run.

Types of lines: `system` (init, status, permission_denied, api_retry, background_tasks_changed), `stream_event` (the
model's stream), `assistant` (a whole block of a message), `user` (tool results), `rate_limit_event`, `result`.
Lines with a `parent_tool_use_id` are a subagent's: its tool calls are recorded, its text is not kept.

Each part of a line is read by itself, calls first: a part that cannot be read does not affect the others.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import structlog
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.engines.claude.background import Background
from gateway_svc.engines.claude.bill import Bill
from gateway_svc.engines.claude.calls import Calls
from gateway_svc.engines.claude.conversation import Conversation, tool_call
from gateway_svc.engines.claude.failures import KINDS, failure
from gateway_svc.engines.claude.limits import rate_limit
from gateway_svc.engines.claude.lines import as_id, as_object, as_word, blocks
from gateway_svc.engines.claude.memory import PROGRAM_SESSION_ID
from gateway_svc.engines.claude.speech import Speech
from gateway_svc.engines.claude.streamed_calls import StreamedCalls
from gateway_svc.engines.wire.fields import Fields, count
from gateway_svc.errors import CANCELLED
from gateway_svc.turns.turn import Turn
from service_kit.bounds import PROGRAM_CALLS, PROGRAM_TEXT, TEXT, Tally

_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")

MAX_LOGIN_TRIES = 3
"""The program retries a wrong key ten times, over minutes."""
SYNTHETIC = "<synthetic>"
"""The model of messages that the program makes itself."""

MAX_LOG_LINES = 100
"""Of one run."""

AGENT = "claude-code"
"""The program's name on the record."""

log = structlog.get_logger(__name__)


class Stream:
    """The state of a run, from its lines so far."""

    def __init__(
        self, turn: Turn, calls: Calls, bill: Bill, conversation: Conversation, on_session: Callable[[str], None]
    ) -> None:
        """`on_session` is called with the program's session id as soon as it is known, and when it changes."""
        self._turn = turn
        self._calls = calls
        self._bill = bill
        self._conversation = conversation
        self._on_session = on_session
        self._session_id = ""
        self._message_id = ""
        """The message that is being streamed."""
        self._speech = Speech(turn.events.put_text, conversation.add_text)
        self._tally = Tally()
        self._streamed_text = Tally()
        """Of the message that is being streamed."""
        self._said = 0
        """Lines of the log so far."""
        self._streamed = StreamedCalls(self._tally)
        self._background = Background()
        self._moved = False
        """Whether anything came since the last result."""
        self.idle = False
        """Whether the last line was a result."""
        self.begun = False
        """Whether the program has opened the session, beyond reading its options."""
        self.result: Fields | None = None
        """The result that counts."""
        self.failure_code = ""
        """The program's name for its last failure."""
        self.end = ""
        """Why the model's last message ended, if nothing has followed it."""

    @property
    def answered(self) -> bool:
        """Whether the program is done: after its result, background tasks may still wake it."""
        return self.idle and not self._background.works

    def take(self, line: Fields) -> None:
        """Takes a line.

        Raises:
            EngineError: there is no use in continuing.
        """
        # any value of parent makes the line a subagent's
        subagent = line.get("parent_tool_use_id") not in (None, "")
        kind = line.get("type")
        if kind in ("stream_event", "assistant", "user"):
            self._moved = True
            self.idle = self.idle and kind == "user"
        match kind:
            case "stream_event" if not subagent:
                self._take_event(as_object(line.get("event")))
            case "assistant":
                self._take_assistant(line, subagent=subagent)
            case "user":
                self._take_user(line, subagent=subagent)
            case "system":
                self._take_system(line)
            case "rate_limit_event":
                self._take_rate_limit(as_object(line.get("rate_limit_info")))
            case "result":
                self._take_result(line)

    def finish(self) -> None:
        """No more lines will come: text that came only in pieces is kept."""
        self._speech.complete()

    def say(self, event: str, level: int = logging.WARNING, **fields: Any) -> None:
        """Writes a line to the log, unless the run has written many."""
        self._said += 1
        if self._said <= MAX_LOG_LINES:
            log.log(level, event, **fields)
            if self._said == MAX_LOG_LINES:
                log.warning("claude.log_cut", lines=MAX_LOG_LINES)

    def _counted(self, value: object) -> str:
        word = as_word(value)
        self._tally.add(PROGRAM_TEXT, len(word))
        return word

    def _take_event(self, event: Fields) -> None:
        match event.get("type"):
            case "message_start":
                message = as_object(event.get("message"))
                self._message_id = as_id(message.get("id"))
                self._speech.begin(self._message_id, anew=True)
                self._conversation.begin(self._message_id)
                self._streamed.clear()
                self._streamed_text = Tally()
                self._bill.begin(message, streamed=True)
                self.end = ""
            case "content_block_start":
                self._streamed.start(event)
            case "content_block_delta":
                delta = as_object(event.get("delta"))
                if delta.get("type") == "text_delta":
                    piece = self._counted(delta.get("text"))
                    self._streamed_text.add(TEXT, len(piece))
                    self._speech.add_piece(piece)
                else:
                    self._streamed.add(event, delta)
            case "message_delta":
                self._take_end(event)

    def _take_end(self, event: Fields) -> None:
        reason = as_object(event.get("delta")).get("stop_reason")
        if reason:
            # A message that broke off has a message_stop too, but no reason.
            for block in self._streamed.take_all():
                self._take_call(block, self._message_id, subagent=False, teller="stream")
            self._speech.complete()
            self.end = as_id(reason) or "unknown"
        self._bill.add(as_object(event.get("usage")))
        if reason:
            self._bill.complete()

    def _take_assistant(self, line: Fields, *, subagent: bool) -> None:
        message = as_object(line.get("message"))
        said = blocks(message.get("content"))
        message_id = as_id(message.get("id"))
        made_up = message.get("model") == SYNTHETIC
        if line.get("error"):
            self.failure_code = as_id(line.get("error")) or "unknown"
            if made_up or line.get("is_api_error_message"):
                # The program's own description of a failure, which its result repeats.
                return
        if message_id and not subagent:
            self._speech.begin(message_id)
            self._conversation.begin(message_id)
        for block in said:
            if as_word(block.get("type")).endswith("tool_use"):
                self._take_call(block, message_id, subagent=subagent)
        if not subagent:
            self.end = as_id(message.get("stop_reason"))
            for block in said:
                self._take_words(message_id, block)
        for block in said:
            if as_word(block.get("type")).endswith("tool_result"):
                self._take_result_block(block, line, subagent=subagent)
        if not made_up:
            self._bill.begin(message, subagent=subagent)

    def _take_words(self, message_id: str, block: Fields) -> None:
        match block.get("type"):
            case "text":
                self._speech.add_block(message_id, self._counted(block.get("text")))
            case "thinking":
                self._conversation.add_thinking(self._counted(block.get("thinking")))

    def _take_call(
        self, block: Fields, message_id: str, *, subagent: bool, teller: Literal["stream", "line"] = "line"
    ) -> None:
        call = tool_call(block, self._streamed.id_of(block) if not subagent else "")
        self._tally.add(PROGRAM_TEXT, len(call.name) + len(call.arguments))
        elsewhere = block.get("type") != "tool_use"
        if self._calls.begin(call, message_id, teller, elsewhere=elsewhere) and not subagent:
            self._conversation.add_call(call)

    def _take_user(self, line: Fields, *, subagent: bool) -> None:
        self.end = "" if not subagent else self.end
        self._background.note(line)
        for block in blocks(as_object(line.get("message")).get("content")):
            if block.get("type") == "tool_result":
                self._take_result_block(block, line, subagent=subagent)

    def _take_result_block(self, block: Fields, line: Fields, *, subagent: bool) -> None:
        tool_use_id = as_id(block.get("tool_use_id"))
        if not subagent and (shown := self._streamed.take(tool_use_id)):
            self._take_call(shown, self._message_id, subagent=False, teller="stream")
        result = self._calls.finish(block, line)
        if result and not subagent:
            self._conversation.add_result(tool_use_id, result.text)

    def _take_system(self, line: Fields) -> None:
        match line.get("subtype"):
            case "init":
                self.begun, self.idle = True, False
                self._take_session(line)
                self._take_tools(line.get("tools"))
                agent = AGENT, as_id(line.get("claude_code_version"))
                self._calls.name_agent(agent)
                self._bill.agent = self._calls.scope.agent
                if not self._calls.scope.model:
                    self._calls.scope = replace(self._calls.scope, model=as_id(line.get("model")))
            case "status":
                if line.get("status") == "requesting":
                    self._bill.send()
            case "permission_denied":
                self._calls.deny(as_id(line.get("tool_use_id")))
            case "background_tasks_changed":
                self._background.change(line.get("tasks"))
            case "api_retry":
                self._take_retry(as_id(line.get("error")), count(line.get("attempt")), line.get("error_status"))

    def _take_tools(self, tools: object) -> None:
        named = tools if isinstance(tools, list) else []
        self._calls.offered |= {name for name in named if isinstance(name, str) and _TOOL_NAME.fullmatch(name)}
        PROGRAM_CALLS.check(len(self._calls.offered))

    def _take_retry(self, code: str, attempt: int, status: object) -> None:
        told = code if code in KINDS else "unknown"
        self.say("claude.retrying", logging.INFO, failure=told, attempt=attempt, http_status=count(status))
        if code == "authentication_failed" and attempt >= MAX_LOGIN_TRIES:
            raise failure(self._turn.scope.model, code, "", status)

    def _take_rate_limit(self, info: Fields) -> None:
        changed = rate_limit(info)
        self._turn.events.put(pb.TurnEvent(rate_limit_changed=changed))
        self.say(
            "claude.rate_limit",
            logging.INFO if changed.status == pb.RATE_LIMIT_STATUS_ALLOWED else logging.WARNING,
            status=pb.RateLimitStatus.Name(changed.status),
            window=changed.window,
            resets_at_ms=changed.resets_at_ms,
            utilization=changed.utilization,
        )

    def _take_result(self, line: Fields) -> None:
        if self.result is not None and not self._moved:
            # Nothing was done since the last result, so this one cannot change how that ended.
            self.say("claude.result_again", failed=line.get("is_error") is not False)
        else:
            self.result = line
        self.idle, self._moved = True, False
        if self._calls.stopping:
            self._bill.settle(line, CANCELLED)
        else:
            if self.result.get("is_error") is False:
                self.failure_code = ""
                self._speech.conclude(as_word(self.result.get("result")))
                self._bill.complete()
            self._bill.settle(line)
        if self.begun:
            self._take_session(line)

    def _take_session(self, line: Fields) -> None:
        session_id = as_id(line.get("session_id"))
        if session_id != self._session_id and PROGRAM_SESSION_ID.fullmatch(session_id):
            self._session_id = session_id
            self._on_session(session_id)
