"""A turn whose engine is rate limited or down goes on with the session's fallback, and the rows say who did what."""

from contextlib import AsyncExitStack

import grpc
import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.model_server import ModelServer
from demo.script import Call, Refusal, Script, Step
from tests.e2e.conftest import kinds, run_turn, text_of

LOOK = Step(tool_calls=(Call(name="read", arguments={"path": "notes.txt"}),))
LIMITED = Step(refuse=Refusal(status=429, message="slow down", headers={"retry-after": "3600"}))
FALLBACK = pb.EngineChoice(engine="openai", model="second")


@pytest.fixture
async def first():
    """The server of the engine ollama, apart from that of the engine openai."""
    async with AsyncExitStack() as stack:

        async def start(*steps: Step) -> ModelServer:
            return await stack.enter_async_context(ModelServer(Script(steps=steps)))

        yield start


@pytest.mark.parametrize(("steps", "calls"), [((LIMITED,), 0), ((LOOK, LIMITED), 1)], ids=["at once", "between steps"])
async def test_a_rate_limited_engine_hands_its_turn_over(make_pair, first, steps, calls):
    pair = await make_pair(Script(steps=(LOOK, Step(text="Done."))))
    (pair.workspace / "notes.txt").write_text("tides\n")
    pair.start_audit()
    server = await first(*steps)
    gateway = await pair.gateway(pair.start_gateway(GATEWAY_OLLAMA_URL=server.ollama_url))
    events = await run_turn(gateway, engine="ollama", fallback=FALLBACK)
    [changed] = [event.engine_changed for event in events if event.HasField("engine_changed")]
    assert (changed.engine, changed.model) == ("openai", "second")
    assert "429" in changed.reason
    assert text_of(events) == "Done."
    assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
    rows = await pair.rows(1)
    assert [(row.engine, row.model) for row in rows] == [("ollama", "scripted") if calls else ("openai", "second")]
    costs = pair.query("SELECT engine, error IS NULL FROM cost_log ORDER BY id")
    assert costs[-2:] == [("openai", 1)] * 2 if not calls else costs == [("ollama", 1), ("ollama", 0), ("openai", 1)]

    session_id = events[0].turn_started.session_id
    session = (await gateway.GetSession(pb.GetSessionRequest(session_id=session_id))).session
    assert (session.engine, session.fallback) == ("ollama", FALLBACK)
    server.script = Script(steps=(Step(text="I am back."),))
    assert text_of(await run_turn(gateway, session_id=session_id)) == "I am back.", "the next turn begins with its own"


async def test_an_engine_that_is_down_is_replaced_and_a_fallback_that_is_down_too_is_told(make_pair, first):
    pair = await make_pair(Script(steps=(Step(text="Done."),)))
    pair.start_audit()
    server = await first()
    await server.__aexit__(None, None, None)
    gateway = await pair.gateway(pair.start_gateway(GATEWAY_OLLAMA_URL=server.ollama_url))
    events = await run_turn(gateway, engine="ollama", fallback=FALLBACK)
    assert kinds(events)[:2] == ["turn_started", "engine_changed"]
    session_id = events[0].turn_started.session_id
    pair.model.script = Script(steps=(LIMITED,))
    with pytest.raises(grpc.aio.AioRpcError, match="engine openai, model second") as failure:
        await run_turn(gateway, session_id=session_id)
    assert failure.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_other_errors_are_not_handed_over_and_a_fallback_must_exist(make_pair, first):
    pair = await make_pair(Script(steps=(Step(text="Done."),)))
    pair.start_audit()
    server = await first(Step(refuse=Refusal(status=401, message="who are you")))
    gateway = await pair.gateway(pair.start_gateway(GATEWAY_OLLAMA_URL=server.ollama_url))
    with pytest.raises(grpc.aio.AioRpcError, match="who are you"):
        await run_turn(gateway, engine="ollama", fallback=FALLBACK)
    with pytest.raises(grpc.aio.AioRpcError, match="engine 'nine' is not configured"):
        await run_turn(gateway, fallback=pb.EngineChoice(engine="nine"))
    events = await run_turn(gateway, engine="openai", fallback=FALLBACK)
    session_id = events[0].turn_started.session_id
    await run_turn(gateway, session_id=session_id, fallback=pb.EngineChoice())
    assert not (await gateway.GetSession(pb.GetSessionRequest(session_id=session_id))).session.HasField("fallback")
