"""A turn on its engine and, where that cannot work now, on the session's fallback."""

from collections.abc import Mapping
from dataclasses import replace

import structlog
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.errors import EngineBrokeOff, EngineRateLimited, EngineUnavailable
from gateway_svc.messages import AssistantMessage, UserMessage
from gateway_svc.turns.turn import Runner, Turn

GO_ON = "Go on."
"""What an engine is told that takes a turn over behind what the other had said."""

log = structlog.get_logger(__name__)


async def run_engines(
    runners: Mapping[str, Runner], runner: Runner, turn: Turn, fallback: tuple[str, str] | None
) -> pb.StopReason.ValueType:
    """Runs a turn and returns why it stopped. Its budgets hold on whatever engine it runs.

    Args:
        runners: the deployment's, by their engines.
        runner: the one of the turn's engine.
        turn: it goes on with another scope when the engine changes.
        fallback: engine and model, empty for the engine's default; None where the session has none.

    Raises:
        GatewayError: for the caller.
    """
    if turn.is_over_budget():
        return pb.STOP_REASON_MAX_COST
    try:
        return await runner.run(turn)
    except (EngineUnavailable, EngineRateLimited, EngineBrokeOff) as error:
        other = runners.get(fallback[0]) if fallback else None
        if fallback is None or other is None:
            raise
        model = fallback[1] or other.default_model
        if (other.name, model) == (turn.scope.engine, turn.scope.model):
            raise
        log.warning("turn.engine_changed", engine=other.name, model=model, error=type(error).__name__)
        turn.scope = replace(turn.scope, engine=other.name, model=model)
        changed = pb.EngineChanged(engine=other.name, model=model, reason=str(error))
        turn.events.put(pb.TurnEvent(engine_changed=changed))
    if isinstance(turn.history[-1], AssistantMessage):
        turn.append(UserMessage(GO_ON))
    return pb.STOP_REASON_MAX_COST if turn.is_over_budget() else await other.run(turn)
