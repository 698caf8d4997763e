"""Turns of gateways that share sessions: followed, joined, waited for and changed at any of them."""

import asyncio
import os
import signal
from typing import Any

import grpc
import pytest
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2, approvals_pb2_grpc
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Script, Step
from tests.e2e.conftest import SECONDS_TO_ARRIVE, kinds, run_turn, text_of
from tests.e2e.test_encrypted_sessions import KEY, keys_in
from tests.e2e.test_shared_sessions import WAIT, WORK, begin, start
from tests.support.postgres import *  # noqa: F403 - fixtures

pytestmark = [pytest.mark.postgres, pytest.mark.long]

STEP = Step(tool_calls=(Call(name="bash", arguments={"command": WAIT}),))


async def rest(call: Any) -> list[pb.TurnEvent]:
    return [event async for event in call]


async def attach(gateway: Any, turn_id: str, after: int = 0) -> list[pb.TurnEvent]:
    return await rest(gateway.AttachTurn(pb.AttachTurnRequest(turn_id=turn_id, after_sequence=after)))


async def first_of(call: Any) -> pb.TurnEvent:
    return await anext(aiter(call))


@pytest.mark.parametrize("keys", ["", f"may {KEY}\n"])
async def test_a_turn_is_followed_from_any_gateway_while_it_runs_and_after_its_end(
    make_pair, postgres_database, tmp_path, keys
):
    pair = await make_pair(Script(steps=(STEP, Step(text="Done. " * 20_000))))
    env = keys_in(tmp_path, keys) if keys else {}
    one, two = [await pair.gateway(start(pair, postgres_database, name, **env)) for name in ("one", "two")]
    call = one.RunTurn(pb.RunTurnRequest(input="go", keep_on_disconnect=True))
    accepted = await first_of(call)
    turn_id = accepted.turn_accepted.turn_id
    following = two.AttachTurn(pb.AttachTurnRequest(turn_id=turn_id))
    assert await first_of(following) == accepted
    (pair.workspace / "go").touch()
    events = [accepted, *await rest(call)]
    assert [accepted, *await rest(following)] == events
    assert await attach(two, turn_id) == events
    assert await attach(two, turn_id, events[-2].sequence) == events[-1:]
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await attach(two, turn_id, events[-1].sequence + 1)
    assert late.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await attach(two, "nobody's")
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_gateway_that_lacks_the_key_tells_who_asks_for_what_it_has(make_pair, postgres_database, tmp_path):
    pair = await make_pair(WORK)
    one = await pair.gateway(start(pair, postgres_database, "one"))
    env = keys_in(tmp_path, f"may {KEY}\n")
    second = start(pair, postgres_database, "two", **env)
    two, approvals = await pair.gateway(second), await pair.approvals(second)
    call = one.RunTurn(pb.RunTurnRequest(input="go", keep_on_disconnect=True))
    turn_id = (await first_of(call)).turn_accepted.turn_id
    for asked in (
        two.AttachTurn(pb.AttachTurnRequest(turn_id=turn_id)),
        one.AttachTurn(pb.AttachTurnRequest(turn_id="nobody's")),
        approvals.WatchPendingToolCalls(approvals_pb2.WatchPendingToolCallsRequest()),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rest(asked)
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert "need the same GATEWAY_SESSIONS_KEY_FILE" in (refused.value.details() or "")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await approvals.ListPendingToolCalls(approvals_pb2.ListPendingToolCallsRequest())
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    (pair.workspace / "go").touch()
    assert text_of(await rest(call)) == "Done."


async def test_a_request_joins_its_turn_from_any_gateway_and_the_last_who_leaves_cancels_it(
    make_pair, postgres_database
):
    pair = await make_pair(WORK)
    one, two = [await pair.gateway(start(pair, postgres_database, name)) for name in ("one", "two")]
    call, session_id = await begin(pair, one, request_id="once")
    joined = two.RunTurn(pb.RunTurnRequest(input="go", request_id="once"))
    accepted = await first_of(joined)
    assert accepted.turn_accepted.session_id == session_id
    call.cancel()
    (pair.workspace / "go").touch()
    assert text_of(await rest(joined)) == "Done.", "who joined listens on"
    assert (pair.workspace / "ran.log").read_text() == "ran\n"
    (pair.workspace / "go").unlink()
    (pair.workspace / "ran.log").unlink()
    call, _ = await begin(pair, one, request_id="twice")
    joined = two.RunTurn(pb.RunTurnRequest(input="go", request_id="twice"))
    turn_id = (await first_of(joined)).turn_accepted.turn_id
    call.cancel()
    joined.cancel()
    events = await attach(one, turn_id)
    assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_CANCELLED


async def test_who_follows_a_turn_whose_gateway_dies_is_told_so(make_pair, postgres_database):
    pair = await make_pair(WORK)
    first = start(pair, postgres_database, "one")
    two = await pair.gateway(start(pair, postgres_database, "two"))
    await begin(pair, await pair.gateway(first), request_id="once")
    joined = two.RunTurn(pb.RunTurnRequest(input="go", request_id="once"))
    await first_of(joined)
    first.kill()
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await rest(joined)
    assert gone.value.code() == grpc.StatusCode.UNAVAILABLE
    again = await run_turn(two, input="go", request_id="once")
    assert kinds(again) == ["turn_accepted", "turn_finished"]
    assert again[-1].turn_finished.stop_reason == pb.STOP_REASON_FAILED


async def test_turns_of_one_session_wait_for_each_other_at_any_gateway_and_its_settings_change_at_once(
    make_pair, postgres_database
):
    pair = await make_pair(WORK)
    one, two = [await pair.gateway(start(pair, postgres_database, name)) for name in ("one", "two")]
    call, session_id = await begin(pair, one)
    waiting = two.RunTurn(pb.RunTurnRequest(input="go", session_id=session_id))
    await first_of(waiting)
    change = pb.UpdateSessionRequest(session_id=session_id, settings=pb.SessionSettings(labels={"team": "a"}))
    change.update_mask.paths.append("labels")
    assert dict((await two.UpdateSession(change)).session.settings.labels) == {"team": "a"}
    cancelled = await two.CancelTurn(pb.CancelTurnRequest(session_id=session_id))
    events = await rest(call)
    assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_CANCELLED, "the one that ran was meant"
    assert cancelled.turn_id
    (pair.workspace / "go").touch()
    assert text_of(await rest(waiting)) == "Done."
    session = (await one.GetSession(pb.GetSessionRequest(session_id=session_id))).session
    assert (session.turns, dict(session.settings.labels)) == (2, {"team": "a"})


async def test_what_waits_for_an_answer_is_watched_from_any_gateway(make_pair, postgres_database):
    pair = await make_pair(WORK)
    (pair.workspace / "go").touch()
    services = [start(pair, postgres_database, name, GATEWAY_TOOLS="bash=ask") for name in ("one", "two")]
    one = await pair.gateway(services[0])
    approvals = approvals_pb2_grpc.ApprovalServiceStub(await pair.channel(services[1].address))
    watch = aiter(approvals.WatchPendingToolCalls(approvals_pb2.WatchPendingToolCallsRequest()))
    async with asyncio.timeout(SECONDS_TO_ARRIVE):
        assert not (await anext(watch)).added
        call = one.RunTurn(pb.RunTurnRequest(input="go"))
        while not (added := (await anext(watch)).added):
            pass
        answer = approvals_pb2.AnswerToolCallRequest(
            tool_call_id=added[0].tool_call_id, verdict=common_pb2.VERDICT_ALLOWED, args_digest=added[0].args_digest
        )
        await approvals.AnswerToolCall(answer)
        while added[0].tool_call_id not in (await anext(watch)).gone_ids:
            pass
        assert text_of(await rest(call)) == "Done."
        call = one.RunTurn(pb.RunTurnRequest(input="go"))
        while not (added := (await anext(watch)).added):
            pass
        services[0].kill()
        while added[0].tool_call_id not in (await anext(watch)).gone_ids:
            pass
        third = start(pair, postgres_database, "three", GATEWAY_TOOLS="bash=ask")
        call = (await pair.gateway(third)).RunTurn(pb.RunTurnRequest(input="go"))
        while not (await anext(watch)).added:
            pass
        call.cancel()


async def test_a_gateway_that_hangs_is_told_to_who_follows_it(make_pair, postgres_database):
    pair = await make_pair(WORK)
    first = start(pair, postgres_database, "one")
    two = await pair.gateway(start(pair, postgres_database, "two"))
    call, _ = await begin(pair, await pair.gateway(first), request_id="once", keep_on_disconnect=True)
    joined = two.RunTurn(pb.RunTurnRequest(input="go", request_id="once", keep_on_disconnect=True))
    await first_of(joined)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(SECONDS_TO_ARRIVE):
            with pytest.raises(grpc.aio.AioRpcError) as hangs:
                await rest(joined)
        assert hangs.value.code() == grpc.StatusCode.UNAVAILABLE
    finally:
        os.kill(first.pid, signal.SIGCONT)
    (pair.workspace / "go").touch()
    assert text_of(await run_turn(two, input="go", request_id="once", keep_on_disconnect=True)) == "Done."
    await rest(call)
