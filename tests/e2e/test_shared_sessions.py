"""Gateways that share sessions in PostgreSQL, each with a state directory of its own."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2, approvals_pb2_grpc, gateway_pb2_grpc
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.postgres import PostgresServer
from demo.processes import Service, ServiceEnded
from demo.script import Call, Script, Step
from service_kit.access.roles import Role, make_token
from tests.e2e.conftest import SECONDS_TO_ARRIVE, Pair, error_of, kinds, run_turn, text_of
from tests.support.postgres import *  # noqa: F403 - fixtures
from tests.support.postgres import standing_still

pytestmark = pytest.mark.postgres

WAIT = "echo ran >> ran.log; until [ -e go ]; do sleep 0.02; done"
WORK = Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": WAIT}),)), Step(text="Done.")))

CALLERS = {"ada": [Role.CALLER], "bob": [Role.CALLER], "eve": [Role.APPROVER]}


def start(pair: Pair, url: str, name: str, **env: str) -> Service:
    return pair.start_gateway(GATEWAY_SESSIONS=url, GATEWAY_STATE_DIR=str(pair.folder / name), **env)


async def begin(pair: Pair, gateway, **request) -> tuple[Any, str]:
    """A turn whose tool runs, and the id of its session."""
    call = gateway.RunTurn(pb.RunTurnRequest(**{"input": "go", **request}))
    session_id = ""
    async for event in call:
        session_id = session_id or event.turn_accepted.session_id
        if event.HasField("tool_call_started"):
            break
    async with asyncio.timeout(SECONDS_TO_ARRIVE):
        while not (pair.workspace / "ran.log").exists():
            await asyncio.sleep(0.02)
    return call, session_id


async def said(gateway, session_id: str) -> list[str]:
    page = await gateway.GetTranscript(pb.GetTranscriptRequest(session_id=session_id, page_size=100))
    texts = []
    for entry in page.entries:
        texts.append(entry.user_text or entry.tool_text.text or entry.model_answer.text)
    return texts


async def test_any_gateway_continues_a_session(make_pair, postgres_database):
    pair = await make_pair(WORK)
    (pair.workspace / "go").touch()
    one, two = [await pair.gateway(start(pair, postgres_database, name)) for name in ("one", "two")]
    events = await run_turn(one)
    session_id = events[0].turn_accepted.session_id
    assert text_of(await run_turn(two, session_id=session_id)) == "Done."
    assert text_of(await run_turn(one, session_id=session_id)) == "Done."
    for gateway in (one, two):
        session = (await gateway.GetSession(pb.GetSessionRequest(session_id=session_id))).session
        assert (session.turns, session.tool_calls) == (3, 3)
        assert (await said(gateway, session_id)).count("Done.") == 3
    assert not (pair.folder / "one" / "sessions").exists(), "content lies in the database alone"


async def test_a_session_whose_gateway_was_killed_in_a_turn_goes_on_at_another_at_once(make_pair, postgres_database):
    pair = await make_pair(WORK)
    first = start(pair, postgres_database, "one")
    two = await pair.gateway(start(pair, postgres_database, "two"))
    _, session_id = await begin(pair, await pair.gateway(first))
    session = (await two.GetSession(pb.GetSessionRequest(session_id=session_id))).session
    assert session.status == common_pb2.SESSION_STATUS_RUNNING
    first.kill()
    (pair.workspace / "go").touch()
    async with asyncio.timeout(SECONDS_TO_ARRIVE):
        while (await two.GetSession(pb.GetSessionRequest(session_id=session_id))).session.status != (
            common_pb2.SESSION_STATUS_FAILED
        ):
            await asyncio.sleep(0.02)
    assert text_of(await run_turn(two, session_id=session_id)) == "Done."
    texts = await said(two, session_id)
    assert texts.count("(The turn was interrupted.)") == 2, "the call's result, and the turn's answer"
    assert (pair.workspace / "ran.log").read_text() == "ran\nran\n"


@pytest.mark.long
async def test_a_gateway_ends_in_time_in_a_turn_although_the_server_stands_still(
    make_pair, postgres_database, postgres_server
):
    pair = await make_pair(WORK)
    service = start(pair, postgres_database, "one", GATEWAY_DRAIN_SECONDS="1")
    await begin(pair, await pair.gateway(service))
    with standing_still(postgres_server):
        assert await asyncio.to_thread(service.terminate) == 0, service.stderr_text()


async def test_a_gateway_that_was_paused_cannot_write_over_its_successor(make_pair, postgres_database, postgres_server):
    pair = await make_pair(WORK)
    first = start(pair, postgres_database, "one")
    two = await pair.gateway(start(pair, postgres_database, "two"))
    call, session_id = await begin(pair, await pair.gateway(first))
    os.kill(first.pid, signal.SIGSTOP)
    try:
        # As when its network is cut: the server ends the connection that it holds its number by.
        name = Path(postgres_database).name
        postgres_server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1", name
        )
        (pair.workspace / "go").touch()
        assert text_of(await run_turn(two, session_id=session_id)) == "Done."
        before = await said(two, session_id)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    events = [event async for event in call]
    assert error_of(events).code == grpc.StatusCode.ABORTED.value[0]
    assert "taken" in error_of(events).message
    assert await said(two, session_id) == before
    one = await pair.gateway(first)
    assert text_of(await run_turn(one, session_id=session_id)) == "Done.", "it goes on as one of them"


async def test_a_turn_is_cancelled_by_another_gateway(make_pair, postgres_database):
    pair = await make_pair(WORK)
    one, two = [await pair.gateway(start(pair, postgres_database, name)) for name in ("one", "two")]
    (pair.workspace / "go").touch()
    session_id = (await run_turn(two))[0].turn_accepted.session_id  # the session's turn that has ended is known there
    (pair.workspace / "go").unlink()
    (pair.workspace / "ran.log").unlink()
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await two.CancelTurn(pb.CancelTurnRequest(turn_id="nobody's"))
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
    for by_session in (True, False):
        call = one.RunTurn(pb.RunTurnRequest(input="go", session_id=session_id))
        turn_id = (await anext(aiter(call))).turn_accepted.turn_id
        async for event in call:
            if event.HasField("tool_call_started"):
                break
        target = {"session_id": session_id} if by_session else {"turn_id": turn_id}
        assert (await two.CancelTurn(pb.CancelTurnRequest(**target))).turn_id == turn_id
        events = [event async for event in call]
        assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_CANCELLED


async def test_who_calls_another_gateway_has_no_more_rights_there(make_pair, postgres_database, tmp_path):
    """A call that is passed on is the caller's: neither its session nor its tool call is anybody else's matter."""
    tokens = {name: make_token(name, roles) for name, roles in CALLERS.items()}
    callers = tmp_path / "callers"
    callers.write_text("".join(entry for _, entry in tokens.values()))
    callers.chmod(0o600)
    pair = await make_pair(WORK)
    env = {"GATEWAY_TOKENS_FILE": str(callers), "GATEWAY_TOOLS": "bash=ask"}
    services = [start(pair, postgres_database, name, **env) for name in ("one", "two")]
    ends = [await pair.channel(service.address) for service in services]
    (gateway, _), (other, approvals) = [
        (gateway_pb2_grpc.GatewayServiceStub(end), approvals_pb2_grpc.ApprovalServiceStub(end)) for end in ends
    ]
    by = {name: [("authorization", f"Bearer {token}")] for name, (token, _) in tokens.items()}
    call = gateway.RunTurn(pb.RunTurnRequest(input="go", request_id="once"), metadata=by["ada"])
    accepted = (await anext(aiter(call))).turn_accepted
    session_id = accepted.session_id
    wanted = approvals_pb2.ListPendingToolCallsRequest(page_size=1)
    async with asyncio.timeout(SECONDS_TO_ARRIVE):
        while not (page := await approvals.ListPendingToolCalls(wanted, metadata=by["ada"])).tool_calls:
            await asyncio.sleep(0.02)
    assert not (await approvals.ListPendingToolCalls(wanted, metadata=by["bob"])).tool_calls
    waiting = page.tool_calls[0]
    answer = approvals_pb2.AnswerToolCallRequest(
        tool_call_id=waiting.tool_call_id, verdict=common_pb2.VERDICT_ALLOWED, args_digest=waiting.args_digest
    )
    forged = [*by["bob"], ("onrecord-caller-bin", b'{"name": "ada", "roles": ["admin"]}')]
    for attempt, code in (
        (approvals.AnswerToolCall(answer, metadata=forged), grpc.StatusCode.PERMISSION_DENIED),
        (other.CancelTurn(pb.CancelTurnRequest(session_id=session_id), metadata=forged), grpc.StatusCode.NOT_FOUND),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await attempt
        assert refused.value.code() == code
    (pair.workspace / "go").touch()
    await approvals.AnswerToolCall(answer, metadata=by["eve"])
    events = [event async for event in call]
    assert text_of(events) == "Done."

    services[0].kill()  # what became of its turn is known from the database, to its caller alone
    attach = pb.AttachTurnRequest(turn_id=accepted.turn_id)
    cancel = pb.CancelTurnRequest(turn_id=accepted.turn_id)
    told = [event async for event in other.AttachTurn(attach, metadata=by["ada"])]
    assert (told[0].turn_accepted, kinds(told)) == (accepted, ["turn_accepted", "turn_finished"])
    assert (await other.CancelTurn(cancel, metadata=by["ada"])).turn_id == accepted.turn_id
    for attempt in (other.AttachTurn(attach, metadata=by["bob"]).read(), other.CancelTurn(cancel, metadata=by["bob"])):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await attempt
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_pages_of_sessions_go_on_at_another_gateway(make_pair, postgres_database):
    pair = await make_pair(WORK)
    one, two = [await pair.gateway(start(pair, postgres_database, name)) for name in ("one", "two")]
    made = [(await one.CreateSession(pb.CreateSessionRequest())).session.id for _ in range(2)]
    page = await one.ListSessions(pb.ListSessionsRequest(page_size=1))
    rest = await two.ListSessions(pb.ListSessionsRequest(page_size=1, page_token=page.next_page_token))
    assert [session.id for session in (*page.sessions, *rest.sessions)] == made[::-1]


async def test_a_ledgers_database_is_refused(make_pair, postgres_database, postgres_server):
    pair = await make_pair(WORK)
    postgres_server.execute("CREATE TABLE tool_call_log (position bigint)", Path(postgres_database).name)
    with pytest.raises(ServiceEnded, match="GATEWAY_SESSIONS"):
        start(pair, postgres_database, "one")


async def test_a_request_that_is_sent_to_two_gateways_runs_once(make_pair, postgres_database):
    pair = await make_pair(WORK)
    first = start(pair, postgres_database, "one")
    one, two = await pair.gateway(first), await pair.gateway(start(pair, postgres_database, "two"))
    request = {"request_id": "once", "keep_on_disconnect": True}
    call, session_id = await begin(pair, one, **request)
    joined = asyncio.create_task(run_turn(two, input="go", **request))
    with pytest.raises(grpc.aio.AioRpcError) as other:
        await run_turn(two, input="something else", **request)
    assert other.value.code() == grpc.StatusCode.ALREADY_EXISTS
    (pair.workspace / "go").touch()
    events = [event async for event in call]
    assert (await joined)[-1] == events[-1]
    again = await run_turn(two, input="go", **request)
    assert [event.WhichOneof("event") for event in again] == ["turn_accepted", "turn_finished"]
    assert again[0].turn_accepted.session_id == session_id
    assert again[1].turn_finished == events[-1].turn_finished
    assert (pair.workspace / "ran.log").read_text() == "ran\n"
    assert len((await two.ListSessions(pb.ListSessionsRequest())).sessions) == 1, "none was made for the second"


async def test_a_request_whose_gateway_was_killed_is_interrupted_at_every_other(make_pair, postgres_database):
    pair = await make_pair(WORK)
    first = start(pair, postgres_database, "one")
    two = await pair.gateway(start(pair, postgres_database, "two"))
    _, session_id = await begin(pair, await pair.gateway(first), request_id="once")
    first.kill()
    (pair.workspace / "go").touch()
    again = await run_turn(two, input="go", request_id="once")
    assert again[0].turn_accepted.session_id == session_id
    assert reason_in(error_of(again)) == "INTERRUPTED"
    turn_id = again[0].turn_accepted.turn_id
    attached = [event async for event in two.AttachTurn(pb.AttachTurnRequest(turn_id=turn_id))]
    assert (attached[0], reason_in(error_of(attached)), len(attached)) == (again[0], "INTERRUPTED", 2)
    assert (await two.CancelTurn(pb.CancelTurnRequest(turn_id=turn_id))).turn_id == turn_id
    assert (pair.workspace / "ran.log").read_text() == "ran\n"


async def test_of_equal_requests_to_two_gateways_at_once_one_runs(make_pair, postgres_database):
    pair = await make_pair(WORK)
    (pair.workspace / "go").touch()
    gateways = [await pair.gateway(start(pair, postgres_database, name)) for name in ("one", "two")]
    turns = [
        run_turn(gateway, input="go", request_id=f"request {number}") for number in range(10) for gateway in gateways
    ]
    answers = await asyncio.gather(*turns)
    assert all(events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED for events in answers)
    assert (pair.workspace / "ran.log").read_text() == "ran\n" * 10


async def test_a_request_that_was_refused_may_be_sent_to_another_gateway(make_pair, postgres_database):
    pair = await make_pair(WORK)
    (pair.workspace / "go").touch()
    one, two = [await pair.gateway(start(pair, postgres_database, name)) for name in ("one", "two")]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await run_turn(one, input=" ", request_id="once")
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert text_of(await run_turn(two, request_id="once")) == "Done."


@pytest.mark.long
async def test_who_calls_while_the_database_is_away_hears_so_and_when_to_come_again(make_pair):
    pair = await make_pair(WORK)
    (pair.workspace / "go").touch()
    with PostgresServer(synced=False) as server:
        service = start(pair, server.create_database("sessions"), "one")
        gateway = await pair.gateway(service)
        session_id = (await run_turn(gateway))[0].turn_accepted.session_id
        server.kill()
        new, named = pb.RunTurnRequest(input="go"), pb.RunTurnRequest(input="go", request_id="once")
        for request in (new, named, pb.RunTurnRequest(input="go", session_id=session_id)):
            call = gateway.RunTurn(request, timeout=SECONDS_TO_ARRIVE)
            with pytest.raises(grpc.aio.AioRpcError) as away:
                await anext(aiter(call))
            assert away.value.code() == grpc.StatusCode.UNAVAILABLE
            status = status_pb2.Status.FromString(dict(away.value.trailing_metadata())["grpc-status-details-bin"])
            assert any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details)
        assert service.stderr_text().count("sessions.database_away") == 1
        assert "psycopg" not in service.stderr_text()
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(SECONDS_TO_ARRIVE):
            while True:
                try:
                    events = await run_turn(gateway, session_id=session_id)
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.1)
        assert text_of(events) == "Done."


def reason_in(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for detail in status.details if detail.Unpack(info)), "")
