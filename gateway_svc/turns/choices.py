"""What a client chooses for a session besides its engine: a budget, an engine to fall back to, shadows."""

from collections.abc import Callable

from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.errors import InvalidRequest
from gateway_svc.turns.sessions import SessionState
from gateway_svc.turns.turn import Runner, ShadowRunner

MAX_SHADOWS_PER_SESSION = 4

FindRunner = Callable[[str], Runner]
"""Gives the runner of an engine; raises EngineNotConfigured."""


def check_choices(request: pb.CreateSessionRequest | pb.RunTurnRequest, find_runner: FindRunner) -> None:
    """Checks what a request chooses.

    Raises:
        EngineNotConfigured, InvalidRequest: it cannot be had.
    """
    for budget in ("max_cost_micros", "session_max_cost_micros"):
        if getattr(request, budget, 0) < 0:
            raise InvalidRequest(f"{budget} is negative: leave it 0 for none", budget)
    if request.fallback.engine:
        find_runner(request.fallback.engine)
    if len(request.shadow.engines) > MAX_SHADOWS_PER_SESSION:
        raise InvalidRequest(f"shadow: a session has at most {MAX_SHADOWS_PER_SESSION} shadows", "shadow")
    for choice in request.shadow.engines:
        if not isinstance(find_runner(choice.engine), ShadowRunner):
            raise InvalidRequest(
                f"engine {choice.engine} brings its own tools, which cannot be kept from running", "shadow.engines"
            )


def choose(state: SessionState, request: pb.CreateSessionRequest | pb.RunTurnRequest) -> None:
    """Takes over what a checked request chooses for its session."""
    if isinstance(request, pb.CreateSessionRequest):
        state.max_cost_micros = request.max_cost_micros
    elif request.HasField("session_max_cost_micros"):
        state.max_cost_micros = request.session_max_cost_micros
    if request.HasField("fallback"):
        state.fallback = (request.fallback.engine, request.fallback.model) if request.fallback.engine else None
    if request.HasField("shadow"):
        state.shadows = [(choice.engine, choice.model) for choice in request.shadow.engines]
