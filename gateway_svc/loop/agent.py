"""The agent loop: ask the model, run the tools that it calls, return their results, until it calls none."""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass
from functools import partial

from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.engines import Engine, StepResult, TextDelta
from gateway_svc.errors import CallNotParsed, ContentRefused, ContextExceeded, failure_of
from gateway_svc.loop.answers import Answers
from gateway_svc.loop.calls import CallRunner
from gateway_svc.loop.context import Context, TokenEstimator
from gateway_svc.loop.dry_run import ShadowLogger
from gateway_svc.loop.refusals import (
    CONTENT_REFUSED,
    CUT_CALLS,
    NOT_PARSED,
    WRITE_AGAIN,
    ContextSizes,
    is_refusal,
    withhold,
)
from gateway_svc.messages import AssistantMessage, Message, SystemMessage
from gateway_svc.tools.files import Files
from gateway_svc.tools.toolbox import Toolbox
from gateway_svc.turns.events import step_finished
from gateway_svc.turns.turn import Turn
from recording.args_key import ArgsKey
from recording.calls import Usage
from recording.logger import AuditLogger, safe_audit, safe_synced
from recording.rows import cost_row

STOP_REASONS = {
    "stop": pb.STOP_REASON_COMPLETED,
    "length": pb.STOP_REASON_MAX_OUTPUT_TOKENS,
    "content_filter": pb.STOP_REASON_CONTENT_FILTER,
}
MORE_ROOM = 1.25
"""How much more room there must be than before for what was left out to come back."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a turn ends although the model would continue."""

    max_steps: int = 50
    max_turn_seconds: float = 600.0
    max_parallel_tools: int = 8
    """How many tool calls of one step run in parallel; the others wait for a slot."""


class Agent:
    """Runs turns on one engine (the Runner protocol)."""

    def __init__(
        self,
        engine: Engine,
        toolbox: Toolbox,
        files: Files,
        logger: AuditLogger,
        *,
        price: Callable[[str, Usage], int | None],
        context_tokens: Callable[[str], int | None] = lambda model: None,
        cuts_silently: bool = False,
        answers: Answers,
        limits: Limits,
        args_key: ArgsKey | None = None,
    ) -> None:
        """Creates an agent on an engine.

        `price` gives the cost of a request to a model in millionths of a US dollar, or None if unknown.
        `context_tokens` gives the size of a model's context; None if unknown, so nothing is left out.
        `args_key` makes the digests of arguments.
        `cuts_silently` says that the model server truncates what exceeds the context without an error.
        """
        self.name = engine.name
        self.default_model = engine.default_model
        self.jail = toolbox.jail
        self._engine = engine
        self._toolbox = toolbox
        self._tools, self._tools_revision = b"", -1
        self._logger = logger
        self._price = price
        self._contexts = ContextSizes(context_tokens)
        self._cuts_silently = cuts_silently
        self._estimator = TokenEstimator()
        self._limits = limits
        self._calls = CallRunner(toolbox, files, logger, answers, limits.max_parallel_tools, args_key)

    async def run(self, turn: Turn) -> pb.StopReason.ValueType:
        """Takes steps until the model calls no tool, or a limit is reached.

        Raises:
            EngineError: the model server did not answer as it should.
        """
        context = self._context(turn)
        append = partial(self._append, turn, context)
        was_cut = was_refused = False
        deadline = asyncio.timeout(self._limits.max_turn_seconds - (time.monotonic() - turn.started))
        try:
            async with deadline:
                while turn.account.totals.requests < min(
                    turn.max_steps or self._limits.max_steps, self._limits.max_steps
                ):
                    if turn.account.is_over_budget():
                        return pb.STOP_REASON_MAX_COST
                    answer = await self._ask_until_read(turn, context)
                    append(answer.message)
                    if not answer.message.tool_calls:
                        return STOP_REASONS[answer.finish]
                    if answer.finish == "stop":
                        await turn.kept()
                        await self._calls.run(turn, answer.message.tool_calls, append)
                    else:
                        self._calls.refuse(turn, answer.message.tool_calls, CUT_CALLS[answer.finish], append)
                        if was_cut or answer.finish != "length":  # it would be cut again
                            return STOP_REASONS[answer.finish]
                    was_cut = answer.finish == "length"
                return pb.STOP_REASON_MAX_STEPS
        except ContentRefused:
            was_refused = True
            append(CONTENT_REFUSED)
            return pb.STOP_REASON_CONTENT_FILTER
        except TimeoutError:
            if not deadline.expired():
                raise
            return pb.STOP_REASON_MAX_TURN_SECONDS
        finally:
            if context.can_go_on and not was_refused:
                turn.contexts[self.name] = _Kept(turn.scope.model, turn.system_prompt, context)

    def _context(self, turn: Turn) -> Context:
        """What is sent: as the turn before has left it, with what was said since, or else made of the whole history.

        It is made anew for another model or system prompt, when there is room for more of what was left out, and when a
        server has refused content since, which is withheld in the middle of it.
        """
        kept = turn.contexts.pop(self.name, None)
        if isinstance(kept, _Kept) and (kept.model, kept.system_prompt) == (turn.scope.model, turn.system_prompt):
            new = turn.history[kept.context.covers :]
            refused = any(isinstance(message, AssistantMessage) and is_refusal(message) for message in new)
            room = self._room_bytes(turn) - len(self._tools)
            if not refused and room <= kept.context.fitted_bytes * MORE_ROOM:
                kept.context.go_on(new)
                return kept.context
        told = withhold(_with_system_prompt(turn))
        return Context(self._engine.encode_message, told, system_prompt=bool(turn.system_prompt))

    def _room_bytes(self, turn: Turn) -> int:
        """How much may be sent, tools included; sys.maxsize if the model's context is not known."""
        context_tokens = self._contexts.of(turn.scope.model)
        if context_tokens is None:
            return sys.maxsize
        return self._estimator.room_bytes(turn.scope.session_id, turn.scope.model, context_tokens)

    async def _ask_until_read(self, turn: Turn, context: Context) -> StepResult:
        """Asks the model, and once more if the server refuses the length (then shortened) or cannot parse a call."""
        try:
            return await self._ask_model(turn, context)
        except ContextExceeded as refusal:
            scope, sent_bytes = turn.scope, context.size + len(self._tools)
            context_tokens = self._contexts.refused(scope.model, refusal.reason, sent_bytes)
            self._estimator.refuse(scope.session_id, scope.model, sent_bytes, context_tokens)
            if not self._fit(turn, context):
                raise
        except CallNotParsed:
            self._append(turn, context, NOT_PARSED)
            self._append(turn, context, WRITE_AGAIN)
        return await self._ask_model(turn, context)

    def _append(self, turn: Turn, context: Context, message: Message) -> None:
        turn.append(message)
        context.append(message)

    async def _ask_model(self, turn: Turn, context: Context) -> StepResult:
        """Makes one model request, which has a cost row however it ends."""
        await turn.kept()  # before a model sees it
        self._offer_tools()
        self._fit(turn, context)
        turn.events.begin_step()
        usage, model, failed, exceeded = Usage(complete=False), turn.scope.model, None, False
        created_at_ms, started = time.time_ns() // 1_000_000, time.monotonic()
        try:
            async with aclosing(self._engine.step(turn.scope.model, context.encoded, self._tools)) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        turn.events.put_text(event.text)
                        await turn.events.writable()
                    else:
                        answer, usage, model = event, event.usage, event.model
                        exceeded = self._count(turn, context, usage)
        except BaseException as error:
            failed = error
            raise
        finally:
            cost = cost_row(
                turn.scope,
                usage,
                model=model,
                cost_micros=self._price(model, usage),
                created_at_ms=created_at_ms,
                duration_ms=round((time.monotonic() - started) * 1000),
                failure=failure_of(failed) if failed else None,
                context_exceeded=exceeded,
            )
            safe_audit(self._logger, cost)
            turn.account.add_step(cost, type(failed).__name__ if failed else "")
        await safe_synced(self._logger)
        turn.events.put(step_finished(cost))
        return answer

    def _offer_tools(self) -> None:
        """Encodes the tools again if they have changed."""
        if self._tools_revision != self._toolbox.revision:
            self._tools_revision = self._toolbox.revision
            self._tools = self._engine.encode_tools(self._toolbox.definitions())

    def _fit(self, turn: Turn, context: Context) -> bool:
        """Leaves out what exceeds the model's context, and warns the client; returns whether it did."""
        context_tokens = self._contexts.of(turn.scope.model)
        if context_tokens is None:
            return False
        room = self._room_bytes(turn) - len(self._tools)
        if not context.fit(room, context_tokens // 2) and context.is_told:
            return False
        context.is_told = True
        turn.events.warn(
            pb.WARNING_CODE_HISTORY_SHORTENED,
            f"the conversation does not fit the model's context of {context_tokens} tokens: "
            f"{context.shortened_results} results were shortened, and {context.left_out_turns} earlier turns and "
            f"{context.left_out_steps} earlier steps of this turn were left out",
        )
        return True

    def _count(self, turn: Turn, context: Context, usage: Usage) -> bool:
        """Learns from the server's token count; returns whether it shows that the server truncated the request."""
        scope, sent_bytes = turn.scope, context.size + len(self._tools)
        context_tokens = self._contexts.of(scope.model)
        if context_tokens is None or not usage.input_tokens:
            return False
        if not (self._cuts_silently and context.count(usage.input_tokens, context_tokens)):
            self._estimator.learn(scope.session_id, scope.model, sent_bytes, usage.input_tokens)
            return False
        self._estimator.lower(scope.session_id, scope.model, sent_bytes, usage.input_tokens, context_tokens)
        turn.events.warn(
            pb.WARNING_CODE_CONTEXT_EXCEEDED,
            f"the model server counted {usage.input_tokens} tokens in a request of {sent_bytes} bytes: it has cut "
            f"the request to its context, and the model has not read all of it",
        )
        return True

    def in_shadow(self, done: Sequence[Message]) -> "Agent":
        """An agent whose tools do not run (the ShadowRunner protocol). It shares this agent's engine."""
        shadow = copy(self)
        shadow._calls = self._calls.in_shadow(done)
        shadow._logger = ShadowLogger(self._logger)
        return shadow

    async def aclose(self) -> None:
        """Closes the connections to the model server."""
        await self._engine.aclose()


@dataclass(frozen=True, slots=True)
class _Kept:
    """A context for the session's next turn, and what it holds for."""

    model: str
    system_prompt: str
    context: Context

    @property
    def size(self) -> int:
        """In bytes."""
        return self.context.size


def _with_system_prompt(turn: Turn) -> list[Message]:
    return [SystemMessage(turn.system_prompt), *turn.history] if turn.system_prompt else turn.history
