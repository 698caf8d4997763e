"""Compares shadows with the engine that did the work: which calls agree, what each cost, how long each took.

Calls agree when they have the same tool and the same summary of the arguments, in the same turn. Only turns that a
shadow ran are compared.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from onrecord.audit.v1 import audit_pb2, questions_pb2

CallKey = tuple[str, str, str]
"""Turn, tool, arguments."""


@dataclass(slots=True)
class Side:
    """What one engine and model did."""

    engine: str
    model: str
    shadow: bool
    turns: set[str] = field(default_factory=set)
    model_requests: int = 0
    model_request_errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    known_cost_micros: int = 0
    unpriced_requests: int = 0
    model_ms: int = 0
    """Time of its requests."""
    tool_calls: Counter[CallKey] = field(default_factory=Counter)
    agreed_calls: int = 0
    """Calls that the working engine made too; for the working engine itself, all."""
    missing_calls: int = 0
    """Calls that only the working engine made."""

    @property
    def name(self) -> str:
        """A name for messages."""
        return f"{self.engine} · {self.model}"

    @property
    def own_calls(self) -> int:
        """Calls that the working engine did not make."""
        return self.tool_calls.total() - self.agreed_calls

    def per_turn(self, total: float) -> float:
        """The share of one turn."""
        return total / max(len(self.turns), 1)

    def to_json(self) -> dict[str, Any]:
        """The figures."""
        return asdict(self) | {
            "turns": len(self.turns),
            "tool_calls": self.tool_calls.total(),
            "own_calls": self.own_calls,
        }


@dataclass(slots=True)
class Baseline:
    """The totals of the working engines in the turns that one shadow ran."""

    names: list[str] = field(default_factory=list)
    known_cost_micros: int = 0
    unpriced_requests: int = 0
    model_ms: int = 0

    @property
    def name(self) -> str:
        """A name for messages."""
        return " and ".join(self.names)


@dataclass(slots=True)
class Comparison:
    """The engine that worked first (after a fallback there are two), then its shadows."""

    sides: list[Side]
    worked: list[Side]
    """The working engines again, one entry for each turn."""

    def beside(self, shadow: Side) -> Baseline:
        """What to measure a shadow by: the same turns, on whichever engines ran them."""
        beside = Baseline()
        for side in self.worked:
            if side.turns <= shadow.turns:
                beside.names += [side.name] if side.name not in beside.names else []
                beside.known_cost_micros += side.known_cost_micros
                beside.unpriced_requests += side.unpriced_requests
                beside.model_ms += side.model_ms
        return beside

    @property
    def shadows(self) -> list[Side]:
        """The shadows."""
        return [side for side in self.sides if side.shadow]

    def calls(self) -> list[tuple[CallKey, list[int]]]:
        """Each different call in the order of its first appearance, with how often each side made it."""
        keys = dict.fromkeys(key for side in self.sides for key in side.tool_calls)
        turns = {turn: at for at, turn in enumerate(sorted({key[0] for key in keys}))}  # UUIDv7: in their order
        return [
            (key, [side.tool_calls[key] for side in self.sides]) for key in sorted(keys, key=lambda key: turns[key[0]])
        ]

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain values."""
        calls = [
            {"turn_id": turn, "tool_name": tool, "args_summary": arguments, "made": made}
            for (turn, tool, arguments), made in self.calls()
        ]
        return {"engines": [side.to_json() for side in self.sides], "calls": calls}


def compare(entries: Iterable[questions_pb2.Entry]) -> Comparison:
    """Compares what the timeline of a session tells."""
    timeline = [entry for entry in entries if entry.WhichOneof("entry")]
    compared = {row.turn_id for row in map(_row, timeline) if row.shadow}
    sides: dict[tuple[bool, str, str], Side] = {}
    worked_in: dict[tuple[str, str, str], Side] = {}
    for entry in timeline:
        row = _row(entry)
        if row.turn_id not in compared:
            continue
        model = row.requested_model if isinstance(row, audit_pb2.CostRow) else row.model
        side = sides.setdefault((row.shadow, row.engine, model), Side(row.engine, model, row.shadow))
        side.turns.add(row.turn_id)
        if isinstance(row, audit_pb2.CostRow):
            _add_request(side, row)
            if not row.shadow:
                alone = Side(row.engine, model, shadow=False, turns={row.turn_id})
                _add_request(worked_in.setdefault((row.turn_id, row.engine, model), alone), row)
        else:
            side.tool_calls[row.turn_id, row.tool_name, row.args_summary] += 1
    ordered = [sides[key] for key in sorted(sides)]
    worked: Counter[CallKey] = Counter()
    for side in ordered:
        worked += side.tool_calls if not side.shadow else Counter()
    for side in ordered:
        side.agreed_calls = (side.tool_calls & worked).total()
        wanted = Counter({key: count for key, count in worked.items() if key[0] in side.turns})
        side.missing_calls = (wanted - side.tool_calls).total() if side.shadow else 0
    return Comparison(ordered, list(worked_in.values()))


def _row(entry: questions_pb2.Entry) -> audit_pb2.CostRow | audit_pb2.AuditRow:
    if entry.HasField("model_request"):
        return entry.model_request.model_request
    return entry.tool_call.tool_call


def _add_request(side: Side, row: audit_pb2.CostRow) -> None:
    side.model_requests += 1
    side.model_request_errors += row.HasField("error")
    side.input_tokens += row.input_tokens
    side.output_tokens += row.output_tokens
    side.known_cost_micros += row.cost_micros
    side.unpriced_requests += not row.HasField("cost_micros")
    side.model_ms += row.duration_ms
