"""A gateway of several workers is one gateway: whichever a connection leads to, it answers as one process would.

Each test asks over several connections, which the kernel spreads over the workers as it likes.
"""

import asyncio
import os
import signal
import urllib.request
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2, approvals_pb2_grpc, control_pb2, control_pb2_grpc, gateway_pb2_grpc
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.processes import Service
from demo.script import Call, Script, Step, Tokens
from gateway_svc.workers.identity import CALLER
from service_kit.access.roles import Role, make_token
from tests.e2e.conftest import SECONDS_TO_ARRIVE, Pair, error_of, kinds, run_turn, text_of
from tests.support.pages import pages_of
from tests.support.ports import own_port
from tests.support.processes import children_of, has_ended

pytestmark = pytest.mark.long

CONNECTIONS = 6
WAIT = "echo ran >> ran.log; until [ -e go ]; do sleep 0.02; done"
WORK = Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": WAIT}),)), Step(text="Done.")))
EVERYTHING = control_pb2.StopScope(everything=control_pb2.Everything())


async def connect(pair: Pair, service: Service, token: str = "", listening: int = 2) -> list[Any]:
    """Connections of their own, each with the stubs of all services, once so many processes listen."""
    await until(
        lambda: service.stderr_text().count("service.listening") >= listening
    )  # however slow one of them is to start
    return [await Everything.to(pair, service, token) for _ in range(CONNECTIONS)]


class Everything:
    """The RPCs of all services over one connection."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        for stub in (
            gateway_pb2_grpc.GatewayServiceStub,
            approvals_pb2_grpc.ApprovalServiceStub,
            control_pb2_grpc.ControlServiceStub,
            health_pb2_grpc.HealthStub,
        ):
            self.__dict__.update(vars(stub(channel)))

    @classmethod
    async def to(cls, pair: Pair, service: Service, token: str) -> "Everything":
        options = [("grpc.use_local_subchannel_pool", 1)]
        interceptors: list[Any] = [_SingleWithToken(token), _StreamWithToken(token)] if token else []
        channel = grpc.aio.insecure_channel(service.address, options, interceptors=interceptors)
        return cls(await pair._stack.enter_async_context(channel))


class _WithToken:
    def __init__(self, token: str) -> None:
        self._token = token

    async def _with_token(self, continuation, details, request):
        metadata = grpc.aio.Metadata(*(details.metadata or ()), ("authorization", f"Bearer {self._token}"))
        return await continuation(details._replace(metadata=metadata), request)

    intercept_unary_unary = intercept_unary_stream = _with_token


class _SingleWithToken(_WithToken, grpc.aio.UnaryUnaryClientInterceptor):
    pass


class _StreamWithToken(_WithToken, grpc.aio.UnaryStreamClientInterceptor):
    pass


async def until(holds: Any) -> None:
    async with asyncio.timeout(SECONDS_TO_ARRIVE * 2):
        while not holds():
            await asyncio.sleep(0.02)


async def begin(call: Any) -> str:
    """Waits until the first tool of a turn runs, and returns the turn's id."""
    turn_id = ""
    async for event in call:
        turn_id = turn_id or event.turn_accepted.turn_id
        if event.HasField("tool_call_started"):
            break
    return turn_id


async def test_any_connection_reaches_the_turn_that_runs(make_pair):
    pair = await make_pair(WORK)
    pair.start_audit()
    ends = await connect(pair, pair.start_gateway(GATEWAY_WORKERS="2"))
    first = ends[0].RunTurn(pb.RunTurnRequest(input="go", request_id="r-1", keep_on_disconnect=True))
    turn_id = await begin(first)
    session_id = (await ends[0].ListSessions(pb.ListSessionsRequest())).sessions[0].id
    waiting = [asyncio.create_task(run_turn(end, session_id=session_id)) for end in ends]
    for end in ends:
        session = (await end.GetSession(pb.GetSessionRequest(session_id=session_id))).session
        assert session.status == common_pb2.SESSION_STATUS_RUNNING
        with pytest.raises(grpc.aio.AioRpcError) as busy:
            await end.DeleteSession(pb.DeleteSessionRequest(session_id=session_id))
        assert busy.value.code() == grpc.StatusCode.ABORTED
        with pytest.raises(grpc.aio.AioRpcError) as other:
            await run_turn(end, input="other", request_id="r-1")
        assert other.value.code() == grpc.StatusCode.ALREADY_EXISTS
        status = status_pb2.Status.FromString(dict(other.value.trailing_metadata())["grpc-status-details-bin"])
        info = error_details_pb2.ErrorInfo()
        assert any(detail.Unpack(info) and info.reason == "ALREADY_EXISTS" for detail in status.details)
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await end.CancelTurn(pb.CancelTurnRequest(turn_id="nobody's"))
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
    attached = [end.AttachTurn(pb.AttachTurnRequest(turn_id=turn_id)) for end in ends]
    equal = [run_turn(end, request_id="r-1", keep_on_disconnect=True) for end in ends]
    assert not any(task.done() for task in waiting)
    assert (pair.workspace / "ran.log").read_text() == "ran\n", "the others wait for it"
    (pair.workspace / "go").touch()
    told = [[event async for event in call] for call in attached] + list(await asyncio.gather(*equal))
    assert all(events == told[0] for events in told)
    assert kinds(told[0])[-1] == "turn_finished"
    assert [text_of(await task) for task in waiting] == ["Done."] * len(ends)
    (pair.workspace / "go").unlink()
    again = [end.RunTurn(pb.RunTurnRequest(input="go", keep_on_disconnect=True)) for end in ends]
    ids = [await begin(call) for call in again]
    for end, turn_id in zip(reversed(ends), ids, strict=True):
        assert (await end.CancelTurn(pb.CancelTurnRequest(turn_id=turn_id))).turn_id == turn_id
        events = [event async for event in end.AttachTurn(pb.AttachTurnRequest(turn_id=turn_id))]
        assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_CANCELLED
    for end in ends:
        assert (await end.GetSession(pb.GetSessionRequest(session_id=session_id))).session.turns == 1 + len(ends)
    calls = 1 + 2 * len(ends)
    assert len(await pair.rows(calls)) == calls, "each once, whichever worker's spool it came through"


async def test_what_waits_is_listed_watched_answered_and_stopped_over_any_connection(make_pair, tmp_path):
    pair = await make_pair(WORK)
    pair.start_audit()
    made = {name: make_token(name, roles) for name, roles in (("ann", [Role.CALLER]), ("bob", [Role.CALLER]))}
    made["ops"] = make_token("ops", [Role.ADMIN, Role.APPROVER])
    callers = tmp_path / "callers.toml"
    callers.write_text("\n".join(table for _, table in made.values()))
    service = pair.start_gateway(GATEWAY_WORKERS="2", GATEWAY_TOKENS_FILE=str(callers), GATEWAY_TOOLS="bash=ask")
    ann, bob, ops = [await connect(pair, service, made[name][0]) for name in ("ann", "bob", "ops")]
    watch = ops[0].WatchPendingToolCalls(approvals_pb2.WatchPendingToolCallsRequest())
    assert not (await watch.read()).added
    turns = [asyncio.create_task(run_turn(end)) for end in ann]
    added = set[str]()
    while len(added) < len(turns):
        added |= {call.tool_call_id for call in (await watch.read()).added}
    for end in ops:
        asked = pages_of(end.ListPendingToolCalls, approvals_pb2.ListPendingToolCallsRequest(page_size=2))
        listed = [call async for page in asked for call in page.tool_calls]
        assert {call.tool_call_id for call in listed} == added
        assert [call.asked_at_ms for call in listed] == sorted(call.asked_at_ms for call in listed)
    forged = ((CALLER, b'{"name": "ops", "roles": ["admin", "approver"]}'),)
    for end in bob:
        request = approvals_pb2.ListPendingToolCallsRequest()
        assert not (await end.ListPendingToolCalls(request, metadata=forged)).tool_calls
        call = listed[0]
        with pytest.raises(grpc.aio.AioRpcError) as denied:
            await end.AnswerToolCall(
                approvals_pb2.AnswerToolCallRequest(tool_call_id=call.tool_call_id, verdict=common_pb2.VERDICT_DENIED),
                metadata=forged,
            )
        assert denied.value.code() == grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await end.GetSession(pb.GetSessionRequest(session_id=call.session_id), metadata=forged)
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
    *answered, last = listed
    for end, call in zip(ops, answered, strict=False):
        answer = approvals_pb2.AnswerToolCallRequest(
            tool_call_id=call.tool_call_id, verdict=common_pb2.VERDICT_ALLOWED, args_digest=call.args_digest
        )
        for _ in range(2):  # an answer may be tried again
            await end.AnswerToolCall(answer)
    await until(lambda: (pair.workspace / "ran.log").exists())
    await until(lambda: (pair.workspace / "ran.log").read_text().count("ran") == len(answered))
    stopped = await ops[1].StopAgents(control_pb2.StopAgentsRequest(scope=EVERYTHING, reason="for the test"))
    assert (stopped.ended_turns, stopped.still_running) == (len(turns), 0)
    for task in turns:
        assert error_of(await task).code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    gone = set[str]()
    while last.tool_call_id not in gone:
        gone |= set((await watch.read()).gone_ids)
    watch.cancel()
    for end in ann:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await run_turn(end)
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    for end in ops:
        assert [stop.id for stop in (await end.ListStops(control_pb2.ListStopsRequest())).stops] == [stopped.stop.id]
    for end in ops:
        await end.Resume(control_pb2.ResumeRequest(stop_id=stopped.stop.id, reason="over"))
    for end in ops:
        assert not (await end.ListStops(control_pb2.ListStopsRequest())).stops
    await pair.until("SELECT count(*) FROM control_log WHERE kind IN ('stop', 'resume')", [(2,)])
    principals = {row.principal for row in await pair.rows(len(answered))}
    assert principals == {"ann"}


async def test_limits_and_budgets_are_the_gateways(make_pair):
    price = Tokens(input=1_000, output=100)
    look = Step(tool_calls=(Call(name="bash", arguments={"command": WAIT}),), tokens=price)
    pair = await make_pair(Script(steps=(look, Step(text="Done.", tokens=price))))
    pair.start_audit()
    service = pair.start_gateway(
        GATEWAY_WORKERS="2",
        GATEWAY_MAX_TURNS="1",
        GATEWAY_MAX_QUEUED_TURNS="2",
        GATEWAY_OPENAI_MODEL="gpt-4o-mini",
        GATEWAY_DEFAULT_ENGINE="openai",
        GATEWAY_BUDGETS="team=blue:421",
    )
    ends = await connect(pair, service)
    calls = [end.RunTurn(pb.RunTurnRequest(input="go", keep_on_disconnect=True)) for end in ends[:3]]
    ids = [(await call.read()).turn_accepted.turn_id for call in calls]
    await until(lambda: (pair.workspace / "ran.log").exists())
    for end in ends:
        with pytest.raises(grpc.aio.AioRpcError) as full:
            await run_turn(end)
        assert full.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (pair.workspace / "ran.log").read_text() == "ran\n", "one runs at a time"
    (pair.workspace / "go").touch()
    for turn_id in ids:
        events = [event async for event in ends[-1].AttachTurn(pb.AttachTurnRequest(turn_id=turn_id))]
        assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
    asked = 0
    for end in ends:
        events = await run_turn(end, new_session=pb.SessionSettings(labels={"team": "blue"}))
        asked += events[-1].turn_finished.usage.requests
    assert asked == 3, "two steps cost 420 of 421, so that one more may begin, in whichever worker"


async def test_a_worker_that_is_killed_is_started_again_and_none_outlives_its_supervisor(make_pair, tmp_path):
    pair = await make_pair(WORK)
    pair.start_audit()
    with own_port() as port:
        service = pair.start_gateway(
            GATEWAY_WORKERS="2", GATEWAY_METRICS_LISTEN=f"127.0.0.1:{port}", TMPDIR=str(tmp_path)
        )

        def page() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                return str(answer.read().decode())

        await until(lambda: page().count("onrecord_worker_up{") == page().count("} 1.0\nonrecord_worker_up") + 1)
        ends = await connect(pair, service)
        calls = [end.RunTurn(pb.RunTurnRequest(input="go")) for end in ends]
        sessions = [(await call.read()).turn_accepted.session_id for call in calls]
        victim, other = children_of(service.pid)
        os.kill(victim, signal.SIGKILL)
        await until(lambda: 'onrecord_worker_restarts_total{worker="0"} 1.0' in page())
        await until(lambda: 'onrecord_worker_up{worker="0"} 1.0' in page())
        (pair.workspace / "go").touch()
        for session_id in sessions:
            end = (await connect(pair, service))[0]
            assert text_of(await run_turn(end, session_id=session_id)) == "Done."
        assert (await end.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        assert all(f'onrecord_turns_waiting{{worker="{slot}"}} 0.0' in page() for slot in range(2))
        victim, other = children_of(service.pid)
        service.kill()
        await until(lambda: has_ended(victim) and has_ended(other))
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as it inherits it: this run may be one of nohup's
    again = pair.start_gateway(GATEWAY_WORKERS="2", TMPDIR=str(tmp_path))
    signal.signal(signal.SIGHUP, before)
    await until(lambda: again.stderr_text().count("service.listening") == 2)  # else it may try its jail
    again.process.send_signal(signal.SIGHUP)  # its terminal is closed
    assert again.process.wait(60) == 0
    assert not list(tmp_path.glob("onrecord-*")), "nothing of either is left"
