"""Cost rows for a run of Claude's program: one for each model request, adding up to the program's own total.

The program reports tokens as its requests go on, and cost only with its result. So each row but the last is priced by
the price list, and the last takes the rest of the program's own total. Requests that the stream does not show (those of
subagents, and the program's own) become one row for each model, with the rest of its tokens.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from onrecord.audit.v1 import audit_pb2

from gateway_svc.engines.claude.lines import as_id
from gateway_svc.engines.claude.record import ClaudeAudit
from gateway_svc.engines.claude.usage import Counts, Spent, added, difference, spent_by_model, total_spent
from gateway_svc.engines.wire.fields import Fields
from gateway_svc.turns.events import step_finished
from gateway_svc.turns.turn import Turn
from recording.calls import Failure, Scope, Usage
from service_kit.bounds import PROGRAM_REQUESTS

Price = Callable[[str, Usage], int | None]


@dataclass(slots=True)
class Request:
    """A model request as the stream shows it."""

    model: str
    counts: Counts = field(default_factory=Counts)
    complete: bool = False
    streamed: bool = False
    """Whether it is streamed, so that it ends only with its end event."""
    created_at_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    started: float = field(default_factory=time.monotonic)
    duration_ms: int = 0

    def add(self, usage: object, *, last: bool = False) -> None:
        """Takes the token counts in a line."""
        self.counts.add(usage, last=last)
        self.duration_ms = round((time.monotonic() - self.started) * 1000)

    @property
    def usage(self) -> Usage:
        """Its tokens so far."""
        return self.counts.usage(complete=self.complete)


class Bill:
    """Counts the requests of one run, and writes their rows."""

    def __init__(self, turn: Turn, engine: str, price: Price, audit: ClaudeAudit | None) -> None:
        self._turn = turn
        self._engine = engine
        self._price = price
        self._audit = audit
        self.agent = turn.scope.agent
        """What makes the requests, once the program has named itself."""
        self._ids: set[str] = set()
        self._last: Request | None = None
        """The main conversation's last request, whose row waits for the program's total."""
        self._priced: list[tuple[str, Usage, int]] = []
        """Model, tokens and list price of the requests since the last result."""
        self._subagents: dict[str, Request] = {}
        """Subagents' requests since the last result, by message id: the stream shows only their beginning."""
        self._before: dict[str, Spent] = {}
        self._sent: tuple[int, float] | None = None
        """When the next request was sent, in milliseconds since the epoch and by a monotonic clock."""
        self._rows = 0

    @property
    def has_requests(self) -> bool:
        """Whether the stream or a result has shown a request."""
        return bool(self._rows or self._last)

    def send(self) -> None:
        """The program sends a request of its main conversation."""
        self._sent = time.time_ns() // 1_000_000, time.monotonic()

    def begin(self, message: Fields, *, subagent: bool = False, streamed: bool = False) -> None:
        """A line belongs to a request, new or known: the lines of one request have the same message id."""
        message_id, model = as_id(message.get("id")), as_id(message.get("model"))
        if subagent:
            request = self._subagents.setdefault(message_id, Request(model))
        elif self._last and (message_id in self._ids or not message_id):
            request = self._last
        else:
            self._write_last()
            self._turn.events.begin_step()
            self._ids.add(message_id)
            request = self._last = Request(model, streamed=streamed)
            if self._sent:
                (request.created_at_ms, request.started), self._sent = self._sent, None
        PROGRAM_REQUESTS.check(len(self._ids) + len(self._subagents))
        request.model = request.model or model
        request.add(message.get("usage"))

    def add(self, usage: object) -> None:
        """Takes the output count at the end of the current request."""
        if self._last:
            self._last.add(usage, last=True)

    def complete(self) -> None:
        """The current request has ended, and the client is told."""
        request = self._last
        if request is None or request.complete:
            return
        request.complete = True
        cost = _bare_row(
            self._turn.scope,
            request.usage,
            model=request.model,
            cost_micros=self._price(request.model, request.usage),
            created_at_ms=request.created_at_ms,
            duration_ms=request.duration_ms,
        )
        self._turn.events.put(step_finished(cost))

    def settle(self, result: Fields, failure: Failure | None = None) -> None:
        """Writes the remaining rows, so that those since the last result add up to this one.

        `failure` is why the current request did not end.
        """
        last, self._last = self._last, None
        last_usage = last.usage if last else Usage()
        last_cost = self._price(last.model, last_usage) if last else None
        own = self._price_at_once(last) if last else 0
        spent_by = self._since_last_result(result, last.model if last else "")
        for model, spent in spent_by.items():
            # Providers have their own names for a model: if there is only one, all requests were for it.
            names = {name for name, _, _ in self._priced} if len(spent_by) == 1 else spent.names(model)
            seen = [(usage, cost) for name, usage, cost in self._priced if name in names]
            hidden = difference(spent.usage, [usage for usage, _ in seen])
            rest = None if spent.cost_micros is None else spent.cost_micros - sum(cost for _, cost in seen)
            if last and last.model in names and not (hidden and last_usage.complete):
                # The program has counted more of a request that was cut than the stream showed.
                last_usage = added(last_usage, hidden) if hidden else last_usage
                last_cost = None if rest is None else max(0, own + rest)
            elif hidden or (rest or 0) > 0:
                cost = None if rest is None else max(0, rest)
                self._write(Request(model, complete=True), cost, usage=hidden or Usage())
        if last:
            self._write(last, last_cost, usage=last_usage, failure=None if last.complete else failure)
        self._priced.clear()
        self._subagents.clear()

    def cut(self, failure: Failure) -> None:
        """Writes the remaining rows of a run that ended without a result: their counts may be too low."""
        for request in self._subagents.values():
            self._write(request, None)
        self._subagents.clear()
        if last := self._last:
            self._last = None
            self._write(last, self._price(last.model, last.usage), failure=None if last.complete else failure)
        elif not self._rows:
            self._write(Request(self._turn.scope.model), None, failure=failure)

    def fail(self, failure: Failure) -> None:
        """Writes the row of a failed request, known from a result or from a program that could not run."""
        self._write(Request(self._turn.scope.model, complete=True), 0, failure=failure)

    def _write_last(self) -> None:
        """Writes the row of the last request at list price: a later one takes the rest of the total."""
        if last := self._last:
            if not last.streamed:
                self.complete()
            self._last = None
            cost = self._price_at_once(last)
            self._write(last, cost if last.usage.input_tokens else None)

    def _price_at_once(self, request: Request) -> int:
        # An unknown price leaves no gap here: the program's own total fills it.
        cost = self._price(request.model, request.usage) or 0
        self._priced.append((request.model, request.usage, cost))
        return cost

    def _since_last_result(self, result: Fields, model: str) -> dict[str, Spent]:
        """What each model used since the last result of this run; older programs report only their running total."""
        if (since := result.get("model_usage_since_last_result")) is not None:
            return spent_by_model(since)
        total = spent_by_model(result.get("modelUsage")) or total_spent(result, model)
        before, self._before = self._before, total
        return {name: spent.since(before.get(name)) for name, spent in total.items()}

    def _write(
        self,
        request: Request,
        cost_micros: int | None,
        *,
        usage: Usage | None = None,
        failure: Failure | None = None,
    ) -> None:
        row = (self._audit.cost_row if self._audit else _bare_row)(
            replace(self._turn.scope, engine=self._engine, agent=self.agent),
            usage or request.usage,
            model=request.model,
            cost_micros=cost_micros,
            created_at_ms=request.created_at_ms,
            duration_ms=request.duration_ms,
            failure=failure,
        )
        if self._audit:
            self._audit.record(row)
        self._turn.account.add_step(row)
        self._rows += 1


def _bare_row(
    scope: Scope,
    usage: Usage,
    *,
    model: str,
    cost_micros: int | None,
    created_at_ms: int,
    duration_ms: int,
    failure: Failure | None = None,
) -> audit_pb2.CostRow:
    """What the client is told, and what the turn counts without audit."""
    return audit_pb2.CostRow(
        engine=scope.engine,
        model=model,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_micros=cost_micros,
        created_at_ms=created_at_ms,
        duration_ms=duration_ms,
        error=None if failure is None else str(failure),
        usage_incomplete=not usage.complete,
    )
