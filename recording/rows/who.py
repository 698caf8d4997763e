"""What a call or a request belongs to: the fields that tool calls and model requests share."""

from typing import NamedTuple

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording.calls import Scope
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


def lasting(scope: Scope) -> Lasting:
    """That of a scope."""
    return Lasting(
        scope.session_id, scope.engine, scope.model, scope.principal, scope.on_behalf_of, scope.agent, scope.source
    )


def fit_who(row: audit_pb2.AuditRow | audit_pb2.CostRow, who: Lasting) -> None:
    """Sets in a row who acted, for whom, by what agent and what way. Never raises."""
    row.source = who.source
    row.principal = fit.name(who.principal)
    row.on_behalf_of = fit.name(who.on_behalf_of)
    if who.agent[0]:
        row.agent.name, row.agent.version = map(fit.software, who.agent)


def fit_turn(row: audit_pb2.AuditRow | audit_pb2.CostRow, scope: Scope) -> None:
    """Sets in a row what is the turn's. Never raises."""
    if scope.turn_id:
        row.turn_id = fit.identifier(scope.turn_id)
    if scope.trace_id:
        row.trace_id = fit.trace_id(scope.trace_id)
    if scope.parent_turn_id:
        row.parent_turn_id = fit.identifier(scope.parent_turn_id)
