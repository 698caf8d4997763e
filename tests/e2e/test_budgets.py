"""Budgets of turns, sessions and labels stop a turn one step late at most, and their figures are the ledger's."""

import grpc
import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Script, Step, Tokens
from tests.e2e.conftest import error_of, run_turn

STEP_MICROS = 210
"""What gpt-4o-mini's list price says of 1,000 tokens in and 100 out."""
TOKENS = Tokens(input=1_000, output=100)
LOOK = Step(tool_calls=(Call(name="read", arguments={"path": "notes.txt"}),), tokens=TOKENS, repeat=20)
SCRIPT = Script(steps=(LOOK, Step(text="Done.", tokens=TOKENS)))
PRICED = {"GATEWAY_OPENAI_MODEL": "gpt-4o-mini", "GATEWAY_DEFAULT_ENGINE": "openai", "GATEWAY_TOOLS": "read"}


def ended(events: list[pb.TurnEvent]) -> tuple[int, int, int]:
    finished = events[-1].turn_finished
    return finished.stop_reason, finished.usage.requests, finished.usage.known_cost_micros


def labelled(**labels: str) -> pb.SessionSettings:
    return pb.SessionSettings(labels=labels)


def codes(events: list[pb.TurnEvent]) -> list[int]:
    return [event.warning.code for event in events if event.HasField("warning")]


@pytest.mark.long
async def test_a_turn_stops_when_its_budget_is_used_up(make_pair):
    pair = await make_pair(SCRIPT)
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway(**PRICED))
    events = await run_turn(gateway, max_cost_micros=3 * STEP_MICROS)
    assert ended(events) == (pb.STOP_REASON_MAX_COST, 3, 3 * STEP_MICROS), "used up to the micro, and no step more"
    assert codes(events) == [pb.WARNING_CODE_BUDGET_EXCEEDED]
    session_id = events[0].turn_accepted.session_id
    events = await run_turn(gateway, max_cost_micros=3 * STEP_MICROS + 1, session_id=session_id)
    assert ended(events) == (pb.STOP_REASON_MAX_COST, 4, 4 * STEP_MICROS), "exceeded by one step"
    for wrong in ({"max_cost_micros": -1}, {"new_session": pb.SessionSettings(max_cost_micros=-1)}):
        with pytest.raises(grpc.aio.AioRpcError, match="negative"):
            await run_turn(gateway, **wrong)


@pytest.mark.long
async def test_a_session_keeps_its_budget_across_a_restart_and_its_figures_are_the_ledgers(make_pair):
    pair = await make_pair(SCRIPT)
    pair.start_audit()
    service = pair.start_gateway(**PRICED)
    gateway = await pair.gateway(service)
    request = pb.CreateSessionRequest(settings=pb.SessionSettings(max_cost_micros=5 * STEP_MICROS))
    session_id = (await gateway.CreateSession(request)).session.id
    assert ended(await run_turn(gateway, session_id=session_id, max_steps=3))[:2] == (pb.STOP_REASON_MAX_STEPS, 3)
    service.kill()
    gateway = await pair.gateway(pair.start_gateway(**PRICED))
    assert ended(await run_turn(gateway, session_id=session_id))[:2] == (pb.STOP_REASON_MAX_COST, 2)
    events = await run_turn(gateway, session_id=session_id)
    assert ended(events) == (pb.STOP_REASON_MAX_COST, 0, 0), "nothing is asked of a model any more"
    await pair.costs(5)
    session = (await gateway.GetSession(pb.GetSessionRequest(session_id=session_id))).session
    spent = (session.usage.known_cost_micros, session.usage.unpriced_requests)
    assert spent == (5 * STEP_MICROS, 0)
    assert pair.query("SELECT sum(cost_micros) FROM cost_log") == [(5 * STEP_MICROS,)]
    await pair.until("SELECT known_cost_micros FROM sessions", [(5 * STEP_MICROS,)])


@pytest.mark.long
async def test_what_a_label_spends_counts_for_all_its_sessions_and_after_a_restart(make_pair):
    pair = await make_pair(SCRIPT)
    pair.start_audit()
    env = PRICED | {"GATEWAY_BUDGETS": f"team=research:{4 * STEP_MICROS}/month,user=*:{2 * STEP_MICROS}"}
    service = pair.start_gateway(**env)
    gateway = await pair.gateway(service)
    ada = labelled(team="research", user="ada")
    assert ended(await run_turn(gateway, new_session=ada))[:2] == (pb.STOP_REASON_MAX_COST, 2)
    service.kill()
    gateway = await pair.gateway(pair.start_gateway(**env))
    events = await run_turn(gateway, new_session=ada)
    assert ended(events)[:2] == (pb.STOP_REASON_MAX_COST, 0)
    assert "user=ada" in next(event.warning.message for event in events if event.HasField("warning"))
    events = await run_turn(gateway, new_session=labelled(team="research", user="bob"))
    assert ended(events)[:2] == (pb.STOP_REASON_MAX_COST, 2)
    events = await run_turn(gateway, new_session=labelled(team="research", user="eve"))
    assert "team=research in 20" in next(event.warning.message for event in events if event.HasField("warning"))
    assert ended(await run_turn(gateway, new_session=labelled(team="sales"), max_steps=3))[1] == 3


@pytest.mark.long
async def test_a_budget_for_a_model_without_a_price_is_said_to_be_no_budget(make_pair):
    pair = await make_pair(SCRIPT)
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway(**PRICED | {"GATEWAY_OPENAI_MODEL": "scripted"}))
    events = await run_turn(gateway, max_cost_micros=1, max_steps=3)
    assert codes(events) == [pb.WARNING_CODE_COST_UNKNOWN], "said once"
    assert ended(events)[:2] == (pb.STOP_REASON_MAX_STEPS, 3)
    assert codes(await run_turn(gateway, max_steps=1)) == [], "who sets no budget is told nothing"


@pytest.mark.long
async def test_a_cut_turn_keeps_what_is_known_of_its_cost(make_pair):
    slow = Step(text="so slow " * 500, chunk_delay_ms=100)
    pair = await make_pair(Script(steps=(LOOK.model_copy(update={"repeat": 2}), slow)))
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway(**PRICED))
    events = []
    async for event in gateway.RunTurn(pb.RunTurnRequest(input="go")):
        events.append(event)
        if event.HasField("text_delta"):
            await gateway.CancelTurn(pb.CancelTurnRequest(turn_id=events[0].turn_accepted.turn_id))
    assert ended(events) == (pb.STOP_REASON_CANCELLED, 3, 2 * STEP_MICROS)
    assert events[-1].turn_finished.usage.unpriced_requests == 1, "the cut step's cost is not known"


@pytest.mark.long
async def test_the_ledger_answers_for_other_gateways_and_for_a_lost_state_directory(make_pair, tmp_path):
    pair = await make_pair(SCRIPT)
    audit = pair.start_audit()
    env = PRICED | {"GATEWAY_BUDGETS": f"team=research:{3 * STEP_MICROS}/day", "GATEWAY_BUDGETS_FROM_LEDGER": "true"}
    gateway = await pair.gateway(pair.start_gateway(**env))
    research = labelled(team="research")
    assert ended(await run_turn(gateway, new_session=research, max_steps=2))[1] == 2
    await pair.costs(2)
    elsewhere = pair.start_gateway(**env, GATEWAY_STATE_DIR=str(tmp_path / "elsewhere"))
    assert ended(await run_turn(await pair.gateway(elsewhere), new_session=research))[:2] == (
        pb.STOP_REASON_MAX_COST,
        1,
    )
    await pair.costs(3)
    assert ended(await run_turn(gateway, new_session=research))[:2] == (pb.STOP_REASON_MAX_COST, 0)

    audit.kill()
    events = await run_turn(gateway, new_session=research, max_steps=1)
    assert codes(events) == [pb.WARNING_CODE_BUDGET_UNCERTAIN], "what it knows counts, and it says so"
    strict = pair.start_gateway(**env, GATEWAY_STATE_DIR=str(tmp_path / "strict"), GATEWAY_AUDIT_MODE="strict")
    error = error_of(await run_turn(await pair.gateway(strict), new_session=research))
    assert error.code == grpc.StatusCode.UNAVAILABLE.value[0]
    assert "the ledger cannot be asked" in error.message
