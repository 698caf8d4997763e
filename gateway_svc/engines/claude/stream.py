"""The lines that Claude's program writes in one run, and what each of them changes.

Types of lines: `system` (init, status, permission_denied, api_retry, background_tasks_changed), `stream_event` (what
the model streams, piece by piece), `assistant` (a whole block of a message), `user` (tool results), `rate_limit_event`,
`result`.
Lines with a `parent_tool_use_id` are a subagent's: its tool calls are on the record, its words are its own.
"""

from collections.abc import Callable
from dataclasses import replace

import structlog
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.engines.claude.bill import Bill
from gateway_svc.engines.claude.calls import Calls
from gateway_svc.engines.claude.conversation import Conversation, tool_call
from gateway_svc.engines.claude.failures import failure
from gateway_svc.engines.claude.limits import rate_limit
from gateway_svc.engines.claude.memory import PROGRAM_SESSION_ID
from gateway_svc.engines.wire.fields import Fields, clean, count, fields, items, text
from gateway_svc.errors import CANCELLED
from gateway_svc.turns.turn import Turn

MAX_LOGIN_TRIES = 3
"""A wrong key is tried ten times by the program, over minutes."""

log = structlog.get_logger(__name__)


class Stream:
    """What is known of a run from its lines so far."""

    def __init__(
        self, turn: Turn, calls: Calls, bill: Bill, conversation: Conversation, on_session: Callable[[str], None]
    ) -> None:
        """`on_session` is told the program's id of the session as soon as it is known, and when it changes."""
        self._turn = turn
        self._calls = calls
        self._bill = bill
        self._conversation = conversation
        self._on_session = on_session
        self._session_id = ""
        self._streamed = False
        """Whether text of the message under way came piece by piece."""
        self._background = False
        self.idle = False
        """Whether its last word was a result."""
        self.begun = False
        """Whether the program took up the session, beyond reading its options."""
        self.result: Fields | None = None
        """The last result."""
        self.failure_code = ""
        """What the program called its last failure."""

    @property
    def answered(self) -> bool:
        """Whether the program has nothing more to do: after its result, work in the background may wake it again."""
        return self.idle and not self._background

    def take(self, line: Fields) -> None:
        """Takes a line.

        Raises:
            ValueError: a field has a type that it cannot have.
            EngineError: going on is no use.
        """
        subagent = text(line.get("parent_tool_use_id"))
        kind = line.get("type")
        if kind in ("stream_event", "assistant"):
            self.idle = False
        match kind:
            case "stream_event" if not subagent:
                self._take_event(fields(line.get("event")))
            case "assistant":
                self._take_assistant(line, subagent=bool(subagent))
            case "user":
                self._take_user(line, subagent=bool(subagent))
            case "system":
                self._take_system(line)
            case "rate_limit_event":
                self._take_rate_limit(fields(line.get("rate_limit_info")))
            case "result":
                self._take_result(line)

    def _take_event(self, event: Fields) -> None:
        match event.get("type"):
            case "message_start":
                message = fields(event.get("message"))
                self._conversation.begin(text(message.get("id")))
                self._bill.begin(message)
                self._streamed = False
            case "content_block_delta":
                delta = fields(event.get("delta"))
                if delta.get("type") == "text_delta":
                    self._streamed = True
                    self._turn.events.put_text(clean(text(delta.get("text"))))
            case "message_delta":
                self._bill.add(fields(event.get("usage")))
                if fields(event.get("delta")).get("stop_reason"):
                    # A message that was broken off has a message_stop too, but no reason.
                    self._bill.complete()

    def _take_assistant(self, line: Fields, *, subagent: bool) -> None:
        message = fields(line.get("message"))
        if code := text(line.get("error")):
            # The program's own words on a failure, which its result repeats.
            self.failure_code = code
            return
        if message.get("model") != "<synthetic>":
            self._bill.begin(message, subagent=subagent)
        if not subagent:
            self._conversation.begin(text(message.get("id")))
        for block in map(fields, items(message.get("content"))):
            if block.get("type") == "tool_use":
                self._take_call(block, subagent=subagent)
            elif not subagent:
                self._take_words(block)

    def _take_words(self, block: Fields) -> None:
        match block.get("type"):
            case "text":
                piece = clean(text(block.get("text")))
                if not self._streamed:
                    self._turn.events.put_text(piece)
                self._conversation.add_text(piece)
            case "thinking":
                self._conversation.add_thinking(clean(text(block.get("thinking"))))

    def _take_call(self, block: Fields, *, subagent: bool) -> None:
        call = tool_call(block)
        if self._calls.begin(call) and not subagent:
            self._conversation.add_call(call)

    def _take_user(self, line: Fields, *, subagent: bool) -> None:
        content = fields(line.get("message")).get("content")
        for block in map(fields, content if isinstance(content, list) else ()):
            if block.get("type") == "tool_result":
                result = self._calls.finish(block, line)
                if result and not subagent:
                    self._conversation.add_result(text(block.get("tool_use_id")), result.text)

    def _take_system(self, line: Fields) -> None:
        match line.get("subtype"):
            case "init":
                self.begun, self.idle = True, False
                self._take_session(line)
                if not self._calls.scope.model:
                    self._calls.scope = replace(self._calls.scope, model=clean(text(line.get("model"))))
            case "status":
                if line.get("status") == "requesting":
                    self._bill.send()
            case "permission_denied":
                self._calls.deny(text(line.get("tool_use_id")))
            case "background_tasks_changed":
                self._background = bool(items(line.get("tasks")))
            case "api_retry":
                self._take_retry(text(line.get("error")), count(line.get("attempt")), line.get("error_status"))

    def _take_retry(self, code: str, attempt: int, status: object) -> None:
        log.info("claude.retrying", failure=code, attempt=attempt, http_status=status)
        if code == "authentication_failed" and attempt >= MAX_LOGIN_TRIES:
            raise failure(self._turn.scope.model, code, "", status)

    def _take_rate_limit(self, info: Fields) -> None:
        changed = rate_limit(info)
        self._turn.events.put(pb.TurnEvent(rate_limit_changed=changed))
        log.log(
            20 if changed.status == pb.RATE_LIMIT_STATUS_ALLOWED else 30,
            "claude.rate_limit",
            status=pb.RateLimitStatus.Name(changed.status),
            window=changed.window,
            resets_at_ms=changed.resets_at_ms,
            utilization=changed.utilization,
        )

    def _take_result(self, line: Fields) -> None:
        self.result, self.idle = line, True
        if self._calls.stopping:
            self._bill.settle(line, CANCELLED)
        else:
            if line.get("is_error") is not True:
                self.failure_code = ""
                self._bill.complete()
            self._bill.settle(line)
        if self.begun:
            self._take_session(line)

    def _take_session(self, line: Fields) -> None:
        session_id = text(line.get("session_id"))
        if session_id != self._session_id and PROGRAM_SESSION_ID.fullmatch(session_id):
            self._session_id = session_id
            self._on_session(session_id)
