"""Shadows run a turn again with tools that do not run, and never touch the turn that works."""

import asyncio

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.model_server import ModelServer
from demo.script import Call, Refusal, Script, Step, Tokens
from tests.e2e.conftest import run_turn, text_of

TOKENS = Tokens(input=1_000, output=100)
READ = Call(name="read", arguments={"path": "notes.txt"})
TOUCH = Call(name="bash", arguments={"command": "touch made-by-the-shadow"})
PRIMARY = Script(steps=(Step(tool_calls=(READ,), tokens=TOKENS), Step(text="Done.", tokens=TOKENS)))
OTHER = Script(
    steps=(Step(tool_calls=(READ, TOUCH, Call(name="nope")), tokens=TOKENS), Step(text="Also done.", tokens=TOKENS))
)
SHADOW = pb.ShadowEngines(engines=[pb.EngineChoice(engine="openai", model="gpt-4o-mini")])


@pytest.fixture
async def other():
    async with ModelServer(OTHER) as server:
        yield server


async def shadow_rows(pair, count: int) -> list[audit_pb2.AuditRow]:
    return [row for row in await pair.rows(count) if row.shadow]


async def start(pair, other, **env: str):
    (pair.workspace / "notes.txt").write_text("high tide at noon\n")
    pair.start_audit()
    service = pair.start_gateway(GATEWAY_OPENAI_URL=other.openai_url, **env)
    return service, await pair.gateway(service)


async def test_a_shadow_runs_nothing_is_told_what_the_turn_was_told_and_leaves_marked_rows(make_pair, other):
    pair = await make_pair(PRIMARY)
    _, gateway = await start(pair, other)
    events = await run_turn(gateway, engine="ollama", shadow=SHADOW)
    assert text_of(events) == "Done."
    session_id, turn_id = events[0].turn_started.session_id, events[0].turn_started.turn_id
    rows = await shadow_rows(pair, 4)
    assert [(row.tool_name, row.outcome) for row in rows] == [
        ("read", audit_pb2.OUTCOME_DRY_RUN),
        ("bash", audit_pb2.OUTCOME_DRY_RUN),
        ("nope", audit_pb2.OUTCOME_INVALID_CALL),
    ]
    assert {(row.session_id, row.turn_id, row.engine) for row in rows} == {(session_id, turn_id, "openai")}
    assert not (pair.workspace / "made-by-the-shadow").exists()
    told = [message["content"] for message in other.requests[-1].json["messages"] if message["role"] == "tool"]
    assert "high tide at noon" in told[0], "a call that the turn made too is told the turn's result"
    assert told[1].startswith("(This is a dry run")
    await pair.costs(4)
    assert pair.query("SELECT engine, shadow, sum(cost_micros) FROM cost_log GROUP BY 1, 2") == [
        ("ollama", 0, 0),
        ("openai", 1, 420),
    ]
    async with asyncio.timeout(10):
        while True:
            session = (await gateway.GetSession(pb.GetSessionRequest(session_id=session_id))).session
            if session.shadow_usage.cost_micros:
                break
            await asyncio.sleep(0.02)
    assert session.shadow_usage.cost_micros == 420, "the figures are the ledger's"
    assert (session.steps, session.tool_calls, session.usage.cost_micros) == (2, 1, 0)
    last = pair.model.requests[-1].json["messages"]
    assert not any("Also done" in str(message) for message in last)


async def test_a_shadow_that_fails_or_hangs_neither_delays_the_turn_nor_the_next_nor_the_end(make_pair, other):
    pair = await make_pair(PRIMARY)
    service, gateway = await start(pair, other)
    other.script = Script(steps=(Step(refuse=Refusal(status=400, message="no")),))
    events = await run_turn(gateway, engine="ollama", shadow=SHADOW)
    session_id = events[0].turn_started.session_id
    await pair.costs(3)
    other.script = Script(steps=(Step(text="slow", delay_ms=60_000),))
    for _ in range(12):
        events = await run_turn(gateway, session_id=session_id)
        assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
    assert await asyncio.to_thread(service.terminate) == 0
    await pair.costs(26 + 1 + 8)
    shadows = pair.query("SELECT error, count(*) FROM cost_log WHERE shadow GROUP BY 1 ORDER BY 2")
    assert [count for _, count in shadows] == [1, 8], "the others were left out, since so many were running"
    assert shadows[1][0] == "cancelled"


async def test_shadows_spend_from_the_sessions_budget(make_pair, other):
    pair = await make_pair(PRIMARY)
    _, gateway = await start(pair, other)
    events = await run_turn(gateway, engine="ollama", shadow=SHADOW, session_max_cost_micros=210)
    await pair.costs(3)
    session_id = events[0].turn_started.session_id
    async with asyncio.timeout(10):
        while (await run_turn(gateway, session_id=session_id))[-1].turn_finished.stop_reason != pb.STOP_REASON_MAX_COST:
            await asyncio.sleep(0.02)
    assert pair.query("SELECT sum(cost_micros) FROM cost_log WHERE shadow") == [(210,)]


async def test_an_engine_with_tools_of_its_own_and_too_many_shadows_are_refused(make_pair, other):
    pair = await make_pair(PRIMARY)
    _, gateway = await start(pair, other, GATEWAY_CLAUDE_COMMAND="claude")
    for shadow, said in (
        (pb.ShadowEngines(engines=[pb.EngineChoice(engine="claude")]), "brings its own tools"),
        (pb.ShadowEngines(engines=[pb.EngineChoice(engine="openai")] * 5), "at most 4"),
        (pb.ShadowEngines(engines=[pb.EngineChoice(engine="nine")]), "is not configured"),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=said):
            await run_turn(gateway, shadow=shadow)
