"""What turns, sessions and labels have used and may spend: counted in one place, checked before each step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Protocol, Self
from weakref import WeakValueDictionary

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.turns.budgets import Budget, LabelBudgets
from service_kit.bounds import saturated

Warn = Callable[[pb.WarningCode.ValueType, str], None]
"""Sends the client a warning."""


@dataclass(slots=True)
class Totals:
    """The totals of model requests."""

    requests: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    known_cost_micros: int = 0
    unpriced_requests: int = 0
    """Requests whose price is not known, so that known_cost_micros is short of the truth."""

    @classmethod
    def from_json(cls, value: Mapping[str, int]) -> Self:
        """The totals that were kept; older ones count steps and have a cost."""
        return cls(**{_OLDER_NAMES.get(name, name): saturated(count) for name, count in value.items()})

    def to_json(self) -> dict[str, int]:
        """The totals as they are kept, which is done twice a step: asdict() takes three times as long."""
        return {name: getattr(self, name) for name in _COUNTERS}

    @classmethod
    def of(cls, cost: audit_pb2.CostRow) -> Self:
        """Those of one model request."""
        return cls(
            requests=1,
            input_tokens=cost.input_tokens,
            output_tokens=cost.output_tokens,
            cached_input_tokens=cost.cached_input_tokens,
            reasoning_tokens=cost.reasoning_tokens,
            known_cost_micros=cost.cost_micros,
            unpriced_requests=int(not cost.HasField("cost_micros")),
        )

    def add(self, others: "Totals") -> None:
        """Adds other totals."""
        for name in _COUNTERS:
            if more := getattr(others, name):
                setattr(self, name, saturated(getattr(self, name) + more))

    def to_usage(self) -> common_pb2.Usage:
        """The totals on the wire."""
        return common_pb2.Usage(**{name: getattr(self, name) for name in _COUNTERS if name != "tool_calls"})


_COUNTERS = tuple(counter.name for counter in fields(Totals))
_OLDER_NAMES = {"steps": "requests", "cost_micros": "known_cost_micros", "unpriced_steps": "unpriced_requests"}


class StepObserver(Protocol):
    """Observes a turn's steps and tool calls, for metrics and traces. It never raises."""

    def step_finished(self, cost: audit_pb2.CostRow, error_type: str) -> None:
        """A model request has ended; error_type is the error's class name, empty if there was none."""
        ...

    def tool_call_finished(self, row: audit_pb2.AuditRow) -> None:
        """A tool call has ended."""
        ...


@dataclass(slots=True, weakref_slot=True)
class SessionSpending:
    """What a session has spent, shared by its turn and the shadows of earlier turns."""

    micros: int = 0
    """The session's total, in millionths of a US dollar."""


class SessionSpendings:
    """The spending of sessions that have something running."""

    def __init__(self) -> None:
        self._live: WeakValueDictionary[str, SessionSpending] = WeakValueDictionary()

    def of(self, session_id: str, micros: int) -> SessionSpending:
        """A session's spending, which lives while somebody holds it; `micros` is the kept total."""
        spending = self._live.setdefault(session_id, SessionSpending())
        spending.micros = max(spending.micros, micros)  # another gateway may have run turns of it meanwhile
        return spending


@dataclass(frozen=True, slots=True)
class SharedBudgets:
    """The budgets that everything running for a session shares: the session's, and those of its labels."""

    session: SessionSpending = field(default_factory=SessionSpending)
    labels: LabelBudgets = field(default_factory=LabelBudgets)
    max_micros: int | None = None
    """The session's budget; None: it has none."""

    def list(self) -> list[Budget]:
        """Each budget."""
        if self.max_micros is None:
            return self.labels.budgets
        return [Budget("this session", self.max_micros, lambda: self.session.micros), *self.labels.budgets]

    def spend(self, micros: int) -> None:
        """Adds the cost of a request."""
        self.session.micros += micros
        self.labels.add(micros)


class TurnAccount:
    """What one turn has used, and what it may spend. The one place where steps and tool calls are counted."""

    def __init__(
        self,
        warn: Warn,
        shared: SharedBudgets | None = None,
        *,
        max_micros: int | None = None,
        session_totals: Totals | None = None,
        save: Callable[[], None] | None = None,
        observer: StepObserver | None = None,
    ) -> None:
        """Opens the account.

        `max_micros` is the turn's own budget; None: it has none. `session_totals` are added to as well. `save` is
        called when something was counted, so that a crash forgets nothing.
        """
        self.totals = Totals()
        self.shared = shared or SharedBudgets()
        self.budgets = self.shared.list()
        if max_micros is not None:
            self.budgets = [Budget("this turn", max_micros, lambda: self.totals.known_cost_micros), *self.budgets]
        self.observer = observer
        self._warn = warn
        self._session_totals = session_totals
        self._save = save
        self._warned_of_price = False
        self._begun = set[str]()
        """The ids of tool calls that are counted and have not ended."""

    def add_step(self, cost: audit_pb2.CostRow, error_type: str = "") -> None:
        """Counts one model request; error_type is the name of the class of the error that ended it."""
        step = Totals.of(cost)
        self.totals.add(step)
        if self._session_totals:
            self._session_totals.add(step)
        if self.observer:
            self.observer.step_finished(cost, error_type)
        if cost.cost_micros:
            self.shared.spend(cost.cost_micros)
        if self._save:
            self._save()
        if self.budgets and not (cost.HasField("cost_micros") or cost.HasField("error") or self._warned_of_price):
            self._warned_of_price = True
            self._warn(
                pb.WARNING_CODE_COST_UNKNOWN,
                f"the cost of a request to engine {cost.engine}, model {cost.model} is not known: it is not counted, "
                f"so that {', '.join(budget.name for budget in self.budgets)} may cost more than its budget",
            )

    def begin_tool_call(self, row_id: str) -> None:
        """Counts a tool call whose intent is on the record, and so has a row even if this process ends before it."""
        self._begun.add(row_id)
        self._count_tool_call()

    def add_tool_call(self, row: audit_pb2.AuditRow) -> None:
        """A tool call has ended: it is counted if it was not when it began, such as one that was refused."""
        if row.id in self._begun:
            self._begun.discard(row.id)
        else:
            self._count_tool_call()
        if self.observer:
            self.observer.tool_call_finished(row)

    def _count_tool_call(self) -> None:
        self.totals.tool_calls += 1
        if self._session_totals:
            self._session_totals.tool_calls += 1
        if self._save:
            self._save()

    def is_over_budget(self) -> bool:
        """Whether a budget is used up, so that the turn must end; the client is told which."""
        for budget in self.budgets:
            if budget.left_micros <= 0:
                self._warn(
                    pb.WARNING_CODE_BUDGET_EXCEEDED,
                    f"the budget of {budget.name} is used up: ${budget.spent() / 1_000_000:.6f} of "
                    f"${budget.max_micros / 1_000_000:.6f} are spent",
                )
                return True
        return False
