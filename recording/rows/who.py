"""Who acted, for whom, by what agent and what way: the fields that tool calls and model requests share."""

from onrecord.audit.v1 import audit_pb2

from recording.calls import Scope
from recording.rows import fit


def fit_who(row: audit_pb2.AuditRow | audit_pb2.CostRow, scope: Scope) -> None:
    """Sets them in a row. Never raises."""
    row.source = scope.source
    if scope.principal:
        row.principal = fit.name(scope.principal)
    if scope.on_behalf_of:
        row.on_behalf_of = fit.name(scope.on_behalf_of)
    if scope.parent_turn_id:
        row.parent_turn_id = fit.identifier(scope.parent_turn_id)
    if scope.agent[0]:
        row.agent.name, row.agent.version = map(fit.software, scope.agent)
