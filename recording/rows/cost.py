"""The cost row of a model request."""

from functools import lru_cache
from typing import Any

from onrecord.audit.v1 import audit_pb2

from recording.calls import Failure, Scope, Usage
from recording.ids import uuid7
from recording.redact import exact
from recording.rows import fit
from recording.rows.who import Lasting, fit_turn, fit_who, lasting

_MAX_REMEMBERED = 256


def cost_row(
    scope: Scope,
    usage: Usage,
    *,
    model: str,
    cost_micros: int | None,
    created_at_ms: int,
    duration_ms: int,
    failure: Failure | None = None,
    context_exceeded: bool = False,
    cost_reported: bool = False,
    row_id: str = "",
) -> audit_pb2.CostRow:
    """The row of a finished request, successful or not. Never raises.

    Args:
        scope: what it belongs to; its model is the requested one.
        usage: the tokens that the server counted.
        model: the model that answered, as the server names it.
        cost_micros: the price in millionths of a US dollar; None if unknown.
        created_at_ms: when the request began, in milliseconds since 1970-01-01 UTC.
        duration_ms: from the request to the last byte of the answer.
        failure: why it failed. The server's own words are for the caller alone.
        context_exceeded: whether the server silently cut the prompt.
        cost_reported: whether the price is what the agent reported.
        row_id: the id of the row, a UUIDv7; a new one where it is empty.
    """
    row = audit_pb2.CostRow()
    row.CopyFrom(_fields_of(exact.version(), lasting(scope), model[:_MAX_REMEMBERED]))
    fit_turn(row, scope)
    if len(model) > _MAX_REMEMBERED:
        row.model = fit.model(model)
    row.id = row_id or str(uuid7())
    row.input_tokens = fit.bounded(usage.input_tokens)
    row.output_tokens = fit.bounded(usage.output_tokens)
    if usage.cached_input_tokens:
        row.cached_input_tokens = fit.bounded(usage.cached_input_tokens)
    if usage.reasoning_tokens:
        row.reasoning_tokens = fit.bounded(usage.reasoning_tokens)
    if cost_micros is not None:
        row.cost_micros = fit.bounded(cost_micros)
        row.cost_reported = cost_reported
    row.duration_ms = fit.bounded(duration_ms)
    if failure is not None:
        row.error = fit.error(str(failure))
    row.created_at_ms = fit.bounded(created_at_ms)
    row.usage_incomplete = not usage.complete
    row.context_exceeded = context_exceeded
    return row


@lru_cache(maxsize=1_024)
def _fields_of(_version: int, values: tuple[Any, ...], model: str) -> audit_pb2.CostRow:
    """What all requests of a session to a model have in common, fitted once. values: of lasting()."""
    who = Lasting(*values)
    row = audit_pb2.CostRow(
        session_id=fit.identifier(who.session_id),
        engine=fit.engine(who.engine),
        requested_model=fit.model(who.model),
        model=fit.model(model),
    )
    fit_who(row, who)
    return row
