"""A turn: one user input on its way to the final answer, and what its client hears of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol, runtime_checkable

from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.messages import Message
from gateway_svc.turns.budgets import Budget
from recording.calls import Scope

COALESCE_SECONDS = 0.005
"""How long text is gathered before it is sent: models write hundreds of pieces a second, and a message costs 50 µs."""

MAX_WAITING_BYTES = 2**20
"""How much may wait for a client, besides what gRPC and the kernel hold."""


class TurnEvents:
    """The events of one turn, from the loop that makes them to the RPC that streams them.

    Putting never waits, so that an event can be put wherever one happens. Who puts many waits for room() in between: a
    client that does not read holds up its own turn, and does not fill the gateway's memory.
    """

    def __init__(self) -> None:
        self._events: list[pb.TurnEvent] = []
        self._text: list[str] = []
        self._ready = asyncio.Event()
        self._closed = False
        self._waiting_bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    async def room(self) -> None:
        """Waits until the client has taken so much that less than MAX_WAITING_BYTES wait for it."""
        await self._room.wait()

    def put_text(self, text: str) -> None:
        """Adds a piece of the answer."""
        self._text.append(text)
        self._count(len(text))
        self._ready.set()

    def put(self, event: pb.TurnEvent) -> None:
        """Adds an event."""
        self._flush_text()
        self._events.append(event)
        self._count(event.ByteSize())
        self._ready.set()

    def close(self) -> None:
        """Says that no more events come."""
        self._flush_text()
        self._closed = True
        self._ready.set()

    async def stream(self) -> AsyncIterator[pb.TurnEvent]:
        """All events in order, neighbouring pieces of text joined, until close()."""
        while True:
            await self._ready.wait()
            if not self._events and not self._closed:
                await asyncio.sleep(COALESCE_SECONDS)
            self._ready.clear()
            self._flush_text()
            closed, events, self._events = self._closed, self._events, []
            taken = self._waiting_bytes
            for event in events:
                yield event
            self._count(-taken)
            if closed:
                return

    def _count(self, size: int) -> None:
        self._waiting_bytes += size
        if self._waiting_bytes < MAX_WAITING_BYTES:
            self._room.set()
        else:
            self._room.clear()

    def _flush_text(self) -> None:
        if self._text:
            # A character outside the basic plane may have come in two halves; what stays half is replaced.
            text = "".join(self._text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
            self._events.append(pb.TurnEvent(text_delta=pb.TextDelta(text=text)))
            self._text.clear()


def tool_call_finished(row: audit_pb2.AuditRow) -> pb.TurnEvent:
    """What a client is told of the row of a call that has ended."""
    return pb.TurnEvent(
        tool_call_finished=pb.ToolCallFinished(
            id=row.id,
            tool_name=row.tool_name,
            outcome=row.outcome,
            duration_ms=row.duration_ms,
            exit_code=row.exit_code if row.HasField("exit_code") else None,
            http_status=row.http_status if row.HasField("http_status") else None,
            error=row.error if row.HasField("error") else None,
            result_truncated=row.result_truncated,
            result_bytes=row.result_bytes,
        )
    )


@dataclass(slots=True)
class Totals:
    """What model requests took together."""

    steps: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    cost_micros: int = 0
    unpriced_steps: int = 0
    """Requests whose price is not known, so that cost_micros is short of the truth."""

    def add_step(self, cost: audit_pb2.CostRow) -> None:
        """Counts one model request."""
        self.steps += 1
        self.input_tokens += cost.input_tokens
        self.output_tokens += cost.output_tokens
        self.cached_input_tokens += cost.cached_input_tokens
        self.reasoning_tokens += cost.reasoning_tokens
        self.cost_micros += cost.cost_micros
        self.unpriced_steps += not cost.HasField("cost_micros")

    def add(self, others: "Totals") -> None:
        """Adds what others have counted."""
        for counter in fields(Totals):
            setattr(self, counter.name, getattr(self, counter.name) + getattr(others, counter.name))

    def to_usage(self) -> pb.Usage:
        """The totals on the wire: the cost is unset when a part of it is not known."""
        return pb.Usage(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cached_input_tokens=self.cached_input_tokens,
            reasoning_tokens=self.reasoning_tokens,
            cost_micros=None if self.unpriced_steps else self.cost_micros,
            known_cost_micros=self.cost_micros,
        )


class StepObserver(Protocol):
    """Who is told of a turn's steps and tool calls, for metrics and traces. It never raises."""

    def step_finished(self, cost: audit_pb2.CostRow, error_type: str) -> None:
        """A model request has ended; error_type is the name of the error's class, empty when there was none."""
        ...

    def tool_call_finished(self, row: audit_pb2.AuditRow) -> None:
        """A tool call has ended."""
        ...


@dataclass(slots=True)
class Turn:
    """What a runner is given. It adds to the history through `append` and tells the client through `events`."""

    scope: Scope
    system_prompt: str
    history: list[Message]
    """The session's messages, the user's input last. Only `append` adds to it."""
    append: Callable[[Message], None]
    """Adds a message to the history and to the transcript."""
    events: TurnEvents
    max_steps: int | None = None
    """The client's limit; None means the gateway's own."""
    budgets: Sequence[Budget] = ()
    """What may be spent: asked before each step."""
    spend: Callable[[int], None] | None = None
    """Told the cost of each request, in millionths of a US dollar."""
    totals: list[Totals] = field(default_factory=lambda: [Totals()])
    """Counters that each step and tool call is added to: the turn's own first, then the session's."""
    started: float = field(default_factory=time.monotonic)
    observer: StepObserver | None = None
    _warned_of_price: bool = False

    def warn(self, code: pb.WarningCode.ValueType, message: str) -> None:
        """Tells the client something that does not end the turn."""
        self.events.put(pb.TurnEvent(warning=pb.Warning(code=code, message=message)))

    def count_step(self, cost: audit_pb2.CostRow, error_type: str = "") -> None:
        """Counts one model request; error_type is the name of the class of the error that ended it."""
        for totals in self.totals:
            totals.add_step(cost)
        if self.observer:
            self.observer.step_finished(cost, error_type)
        if self.spend:
            self.spend(cost.cost_micros)
        if self.budgets and not (cost.HasField("cost_micros") or cost.HasField("error") or self._warned_of_price):
            self._warned_of_price = True
            self.warn(
                pb.WARNING_CODE_COST_UNKNOWN,
                f"the cost of a request to engine {cost.engine}, model {cost.model} is not known: it is not counted, "
                f"so that {', '.join(budget.name for budget in self.budgets)} may cost more than its budget",
            )

    def is_over_budget(self) -> bool:
        """Whether a budget is used up, so that the turn has to end; the client is told which."""
        for budget in self.budgets:
            if budget.left_micros <= 0:
                self.warn(
                    pb.WARNING_CODE_BUDGET_EXCEEDED,
                    f"the budget of {budget.name} is used up: {budget.spent()} of {budget.max_micros} millionths of a "
                    f"US dollar are spent",
                )
                return True
        return False

    def count_tool_call(self, row: audit_pb2.AuditRow) -> None:
        """Counts one tool call."""
        for totals in self.totals:
            totals.tool_calls += 1
        if self.observer:
            self.observer.tool_call_finished(row)


class Runner(Protocol):
    """Something that can run a turn: the agent loop over an engine, or an engine that brings its own loop."""

    name: str
    """The engine's name."""
    default_model: str

    async def run(self, turn: Turn) -> pb.StopReason.ValueType:
        """Runs the turn and returns why it stopped.

        Raises:
            GatewayError: for the caller; the history may then end in the middle.
        """
        ...

    async def aclose(self) -> None:
        """Lets go of connections and processes."""
        ...


@runtime_checkable
class ShadowRunner(Runner, Protocol):
    """A runner whose tools can be kept from running."""

    def in_shadow(self, done: Sequence[Message]) -> Runner:
        """A runner over the same engine that runs no tool and marks its rows.

        `done` is what the turn to be compared with has added to the conversation.
        """
        ...
