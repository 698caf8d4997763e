"""A client asks for a turn, and every tool call it leads to is a row in the ledger."""

import asyncio
from typing import Any

import grpc
import pytest
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Page, Script, Step, Tokens
from tests.e2e.conftest import kinds, run_turn, text_of

ENGINES = ["ollama", "openai"]

WORK = Script(
    steps=(
        Step(
            text="Two at once. ",
            tool_calls=(
                Call(name="read", arguments={"path": "notes.txt"}),
                Call(name="bash", arguments={"command": "sleep 0.1; exit 3"}),
            ),
            tokens=Tokens(input=100, output=20),
        ),
        Step(
            tool_calls=(
                Call(name="read", arguments={"path": "missing.txt"}),
                Call(name="no_such_tool", arguments={"secret": "x"}),
                Call(name="read", arguments="{malformed"),
                Call(name="read", arguments={"path": 7}),
            ),
            tokens=Tokens(input=200, output=30),
        ),
        Step(text="Done.", tokens=Tokens(input=300, output=40)),
    ),
    pages={"/pages/hello.html": Page(body="<h1>Hello</h1>")},
)


@pytest.mark.long
@pytest.mark.parametrize("engine", ENGINES)
async def test_the_same_turn_works_on_each_engine(make_pair, engine):
    script = WORK
    if engine == "ollama":  # its protocol sends arguments as an object, which cannot be malformed
        step = WORK.steps[1]
        calls = tuple(call for call in step.tool_calls if call.arguments != "{malformed")
        script = WORK.model_copy(
            update={"steps": (WORK.steps[0], step.model_copy(update={"tool_calls": calls}), WORK.steps[2])}
        )
    pair = await make_pair(script)
    (pair.workspace / "notes.txt").write_text("tides\n")
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway())
    settings = pb.SessionSettings(engine=engine, labels={"user": "ada"})
    events = await run_turn(gateway, new_session=settings)

    assert kinds(events)[:2] == ["turn_accepted", "turn_started"]
    assert kinds(events)[-1] == "turn_finished"
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.step for event in events if event.HasField("step_finished")] == [1, 2, 3]
    accepted, started = events[0].turn_accepted, events[1].turn_started
    assert (started.engine, started.model) == (engine, "scripted")
    assert text_of(events) == "Two at once. Done."
    finished = events[-1].turn_finished
    expected_calls = 5 if engine == "ollama" else 6
    assert (finished.stop_reason, finished.usage.requests, finished.tool_calls) == (
        pb.STOP_REASON_COMPLETED,
        3,
        expected_calls,
    )
    assert (finished.usage.input_tokens, finished.usage.output_tokens) == (600, 90)

    rows = await pair.rows(expected_calls, session_id=accepted.session_id)
    assert {row.engine for row in rows} == {engine}
    assert {row.turn_id for row in rows} == {accepted.turn_id}
    by_kind = {(row.tool_name, common_pb2.Outcome.Name(row.outcome)): row for row in rows}
    bash = by_kind["bash", "OUTCOME_SUCCEEDED"]
    assert bash.exit_code == 3
    assert not bash.HasField("error")
    assert bash.duration_ms >= 100
    assert by_kind["read", "OUTCOME_SUCCEEDED"].result_bytes == 6
    assert by_kind["read", "OUTCOME_FAILED"].error
    assert by_kind["unknown", "OUTCOME_INVALID_CALL"].error
    assert by_kind["read", "OUTCOME_INVALID_CALL"].error

    results = [m for m in pair.model.requests[-1].json["messages"] if m["role"] == "tool"]
    assert len(results) == expected_calls
    assert "tides" in results[0]["content"]
    assert "exit code 3" in results[1]["content"], "the results are told in the order of the calls"

    session = ("idle", 1, 3, expected_calls)
    await pair.until("SELECT status, turns, requests, tool_calls FROM sessions", [session])
    costs = pair.query("SELECT engine, input_tokens, output_tokens, cost_micros FROM cost_log ORDER BY created_at, id")
    price = 0 if engine == "ollama" else None
    assert costs == [(engine, 100, 20, price), (engine, 200, 30, price), (engine, 300, 40, price)]


@pytest.mark.long
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_turn_of_200_steps_leaves_200_rows(make_pair, engine):
    step = Step(tool_calls=(Call(name="read", arguments={"path": "notes.txt"}),), repeat=200)
    pair = await make_pair(Script(steps=(step, Step(text="Done."))))
    (pair.workspace / "notes.txt").write_text("tides\n")
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway(GATEWAY_MAX_STEPS="300"))
    events = await run_turn(gateway, engine=engine)
    assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
    assert events[-1].turn_finished.usage.requests == 201
    rows = await pair.rows(200)
    assert len({row.id for row in rows}) == 200


@pytest.mark.long
async def test_limits_are_stop_reasons_and_the_session_goes_on(make_pair):
    step = Step(tool_calls=(Call(name="bash", arguments={"command": "sleep 0.2"}),), repeat=10)
    pair = await make_pair(Script(steps=(step, Step(text="Done."))))
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway(GATEWAY_MAX_STEPS="4"))
    events = await run_turn(gateway, max_steps=2)
    session_id = events[0].turn_accepted.session_id
    assert (events[-1].turn_finished.stop_reason, events[-1].turn_finished.usage.requests) == (
        pb.STOP_REASON_MAX_STEPS,
        2,
    )
    events = await run_turn(gateway, session_id=session_id, max_steps=99)
    assert (events[-1].turn_finished.stop_reason, events[-1].turn_finished.usage.requests) == (
        pb.STOP_REASON_MAX_STEPS,
        4,
    )
    await pair.rows(6)

    slow = Step(tool_calls=(Call(name="bash", arguments={"command": "sleep 3600"}),))
    pair.model.script = Script(steps=(slow, Step(text="Done.")))
    hurried = await pair.gateway(pair.start_gateway(GATEWAY_MAX_TURN_SECONDS="1.5"))
    events = await run_turn(hurried, session_id=session_id)
    assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_MAX_TURN_SECONDS
    rows = await pair.rows(7)
    assert rows[-1].outcome == common_pb2.OUTCOME_CANCELLED

    pair.model.script = Script(steps=(Step(text="Fresh."),))
    assert text_of(await run_turn(gateway, session_id=session_id, engine="openai")) == "Fresh."


async def run_until(pair: Any, gateway: Any, made: str) -> Any:
    """A turn whose command runs, and has made a file in the workspace."""
    call = gateway.RunTurn(pb.RunTurnRequest(input="go"))
    async for event in call:
        if event.HasField("tool_call_started"):
            break
    while not (pair.workspace / made).exists():
        await asyncio.sleep(0.01)
    return call


@pytest.mark.long
async def test_cancelling_the_rpc_stops_the_turn_and_its_tool_at_once(make_pair):
    command = "echo $$ > pid; sleep 60"
    pair = await make_pair(Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": command}),)),)))
    pair.start_audit()
    service = pair.start_gateway()
    gateway = await pair.gateway(service)
    call = await run_until(pair, gateway, "pid")
    call.cancel()
    [row] = await pair.rows(1)
    assert row.outcome == common_pb2.OUTCOME_CANCELLED
    assert row.error == "cancelled"
    assert row.duration_ms < 30_000
    async with asyncio.timeout(30):
        while (await gateway.ListSessions(pb.ListSessionsRequest())).sessions[0].status != (
            common_pb2.SESSION_STATUS_CANCELLED
        ):
            await asyncio.sleep(0.01)


@pytest.mark.long
async def test_cancel_turn_stops_it_from_elsewhere_and_says_so_to_its_client(make_pair):
    pair = await make_pair(Script(steps=(Step(text="so slow", chunk_delay_ms=60_000),)))
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway())
    events = []
    async for event in gateway.RunTurn(pb.RunTurnRequest(input="go")):
        events.append(event)
        if event.HasField("turn_started"):
            await gateway.CancelTurn(pb.CancelTurnRequest(turn_id=events[0].turn_accepted.turn_id))
    assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_CANCELLED
    await pair.until("SELECT status FROM sessions", [("cancelled",)])
    assert pair.query("SELECT error, usage_incomplete FROM cost_log") == [("cancelled", 1)]


@pytest.mark.long
async def test_a_conversation_goes_on_after_the_gateway_was_killed(make_pair):
    pair = await make_pair(Script(steps=(Step(text="one"),)))
    pair.start_audit()
    first = pair.start_gateway()
    events = await run_turn(await pair.gateway(first), input="remember 7")
    session_id = events[0].turn_accepted.session_id
    first.kill()
    gateway = await pair.gateway(pair.start_gateway())
    await run_turn(gateway, input="which number?", session_id=session_id)
    said = [m["content"] for m in pair.model.requests[-1].json["messages"]]
    assert said == ["remember 7", "one", "which number?"]
    session = (await gateway.GetSession(pb.GetSessionRequest(session_id=session_id))).session
    assert (session.turns, session.usage.requests, session.status) == (2, 2, common_pb2.SESSION_STATUS_IDLE)


@pytest.mark.long
async def test_a_tool_call_that_the_gateway_did_not_survive_is_an_interrupted_row(make_pair):
    command = "touch begun; sleep 60"
    pair = await make_pair(Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": command}),)),)))
    pair.start_audit()
    service = pair.start_gateway()
    gateway = await pair.gateway(service)
    call = await run_until(pair, gateway, "begun")
    service.kill()
    assert await call.code() == grpc.StatusCode.UNAVAILABLE
    pair.start_gateway()
    [row] = await pair.rows(1)
    assert row.outcome == common_pb2.OUTCOME_INTERRUPTED
    assert row.error.startswith("interrupted")
    await pair.until("SELECT status, tool_calls, requests FROM sessions", [("failed", 1, 1)])
    assert row.args_summary == f'{{"command":"{command}"}}'


@pytest.mark.long
async def test_a_turn_needs_no_audit_service_and_its_rows_arrive_when_there_is_one(make_pair):
    call = Call(name="read", arguments={"path": "notes.txt"})
    pair = await make_pair(Script(steps=(Step(tool_calls=(call,)), Step(text="Done."))))
    (pair.workspace / "notes.txt").write_text("tides\n")
    audit = pair.start_audit()
    audit.terminate()
    gateway = await pair.gateway(pair.start_gateway())
    for _ in range(3):
        assert (await run_turn(gateway))[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
    pair.start_audit()
    assert len(await pair.rows(3)) == 3


@pytest.mark.long
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (approvals_pb2.AnswerToolCallRequest(verdict=common_pb2.VERDICT_ALLOWED), common_pb2.OUTCOME_SUCCEEDED),
        (
            approvals_pb2.AnswerToolCallRequest(verdict=common_pb2.VERDICT_DENIED, reason="not today"),
            common_pb2.OUTCOME_DENIED,
        ),
        (None, common_pb2.OUTCOME_DENIED),
    ],
)
async def test_a_call_that_asks_runs_only_when_it_is_allowed(make_pair, answer, outcome):
    call = Call(name="bash", arguments={"command": "touch ran"})
    pair = await make_pair(Script(steps=(Step(tool_calls=(call,)), Step(text="Done."))))
    pair.start_audit()
    env = {"GATEWAY_TOOLS": "read,bash=ask", "GATEWAY_ANSWER_SECONDS": "60" if answer else "1"}
    service = pair.start_gateway(**env)
    gateway, approvals = await pair.gateway(service), await pair.approvals(service)
    begun_ms = 0
    async for event in gateway.RunTurn(pb.RunTurnRequest(input="go")):
        begun_ms = begun_ms or event.at_ms
        if event.HasField("tool_call_started"):
            asked_ms = event.tool_call_started.pending.expires_at_ms - 1000 * int(env["GATEWAY_ANSWER_SECONDS"])
            assert begun_ms <= asked_ms <= event.at_ms
            if answer is not None:
                answer.tool_call_id = event.tool_call_started.tool_call_id
                answer.args_digest.CopyFrom(event.tool_call_started.args_digest)
                for _ in range(2):  # the same answer once more changes nothing
                    await approvals.AnswerToolCall(answer)
    assert event.turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
    [row] = await pair.rows(1)
    assert row.outcome == outcome
    assert (pair.workspace / "ran").exists() is (outcome == common_pb2.OUTCOME_SUCCEEDED)
    told = pair.model.requests[-1].json["messages"][-1]["content"]
    assert ("not today" in told) is (answer is not None and answer.verdict == common_pb2.VERDICT_DENIED)


@pytest.mark.long
async def test_sigterm_ends_both_services_at_once_with_their_rows_in_the_ledger(make_pair):
    pair = await make_pair(Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": "sleep 3600"}),)),)))
    audit, service = pair.start_audit(), pair.start_gateway()
    gateway = await pair.gateway(service)
    calls = [gateway.RunTurn(pb.RunTurnRequest(input="go")) for _ in range(3)]
    for call in calls:
        async for event in call:
            if event.HasField("tool_call_started"):
                break
    stopped = asyncio.create_task(asyncio.to_thread(service.terminate))
    for call in calls:
        last = [event async for event in call][-1]
        assert last.turn_finished.stop_reason == pb.STOP_REASON_CANCELLED
    assert await stopped == 0
    assert await asyncio.to_thread(audit.terminate) == 0
    assert pair.query("SELECT outcome FROM tool_call_log") == [("cancelled",)] * 3
    assert pair.query("SELECT status FROM sessions") == [("cancelled",)] * 3
