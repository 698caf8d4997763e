"""What a call or a request belongs to: the fields that tool calls and model requests share."""

from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording.calls import Scope
from recording.redact import exact
from recording.rows import fit


class Lasting(NamedTuple):
    """What of a scope stays from turn to turn of a session, so that it is fitted once."""

    session_id: str
    engine: str
    model: str
    principal: str
    on_behalf_of: str
    agent: tuple[str, str]
    source: common_pb2.Source.ValueType


lasting: Callable[[Scope], tuple[Any, ...]] = attrgetter(*Lasting._fields)
"""That of a scope, as a tuple of its values: to make a Lasting of each row's would take longer than to find its row."""


def fit_who(row: audit_pb2.AuditRow | audit_pb2.CostRow, who: Lasting) -> None:
    """Sets in a row who acted, for whom, by what agent and what way. Never raises."""
    row.source = who.source
    row.principal = fit.name(who.principal)
    row.on_behalf_of = fit.name(who.on_behalf_of)
    if who.agent[0]:
        row.agent.name, row.agent.version = map(fit.software, who.agent)


def fit_turn(row: audit_pb2.AuditRow | audit_pb2.CostRow, scope: Scope) -> None:
    """Sets in a row what is the turn's. Never raises."""
    turn_id, trace_id, parent_turn_id = _turn(exact.version(), scope.turn_id, scope.trace_id, scope.parent_turn_id)
    if turn_id:
        row.turn_id = turn_id
    if trace_id:
        row.trace_id = trace_id
    if parent_turn_id:
        row.parent_turn_id = parent_turn_id


@lru_cache(maxsize=1_024)
def _turn(_version: int, turn_id: str, trace_id: str, parent_turn_id: str) -> tuple[str, str, str]:
    """Fitted once for all rows of a turn."""
    return fit.identifier(turn_id), fit.trace_id(trace_id), fit.identifier(parent_turn_id)
