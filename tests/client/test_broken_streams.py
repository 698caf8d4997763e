"""The Python client over connections that break: it misses nothing, and nothing runs twice."""

import asyncio

import grpc
import pytest
from onrecord.client import AsyncGateway, Gateway, TurnFailed
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from demo.script import Call, Refusal, Script, Step
from tests.e2e.conftest import make_pair
from tests.faults.proxy import Proxy
from tests.support.grpc_server import started
from tests.support.processes import processes_of

__all__ = ["make_pair"]

COMMAND = "echo ran >> ran.log; until [ -e go ]; do sleep 0.02; done"
WORK = Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": COMMAND}),)), Step(text="Done.")))


@pytest.mark.long
async def test_a_stream_that_is_cut_goes_on_where_it_was(make_pair):
    pair = await make_pair(WORK)
    service = pair.start_gateway(GATEWAY_AUDIT_TARGET="127.0.0.1:1")
    with Proxy(service.address) as proxy:
        async with AsyncGateway(proxy.address) as gateway:
            turn = gateway.run("go", keep_on_disconnect=True)
            heard = []
            async for event in turn:
                heard.append(event.sequence)
                if event.HasField("tool_call_started"):
                    proxy.cut()
                    (pair.workspace / "go").touch()
        assert (turn.answer, heard) == ("Done.", list(range(1, len(heard) + 1)))
        assert turn.finished is not None
        assert turn.finished.stop_reason == pb.STOP_REASON_COMPLETED
    assert (pair.workspace / "ran.log").read_text() == "ran\n"


@pytest.mark.long
async def test_a_request_that_finds_no_gateway_is_sent_again(make_pair):
    pair = await make_pair(WORK)
    (pair.workspace / "go").touch()
    service = pair.start_gateway(GATEWAY_AUDIT_TARGET="127.0.0.1:1")
    with Proxy(service.address) as proxy:
        proxy.behaviour = "refuse"

        def run() -> str:
            with Gateway(proxy.address) as gateway:
                turn = gateway.run("go")
                proxy.behaviour = "pass"
                return turn.wait().answer

        assert await asyncio.to_thread(run) == "Done."
    assert (pair.workspace / "ran.log").read_text() == "ran\n"


@pytest.mark.long
async def test_a_turn_that_fails_raises_its_error_with_what_it_used(make_pair):
    pair = await make_pair(Script(steps=(Step(refuse=Refusal(status=400, message="not so")),)))
    async with AsyncGateway(pair.start_gateway(GATEWAY_AUDIT_TARGET="127.0.0.1:1").address) as gateway:
        turn = gateway.run("go", engine="openai")
        with pytest.raises(TurnFailed, match="not so") as failed:
            await turn.wait()
    assert failed.value.code().name == "FAILED_PRECONDITION"
    assert failed.value.finished == turn.finished
    assert failed.value.finished.usage.requests == 1


@pytest.mark.long
@pytest.mark.parametrize("is_known", [True, False])
async def test_a_gateway_that_was_started_again_tells_how_the_turn_ended(make_pair, tmp_path, is_known):
    """To whoever attaches. A gateway that knows nothing of it says so, and runs nothing."""
    pair = await make_pair(WORK)
    first = pair.start_gateway(GATEWAY_AUDIT_TARGET="127.0.0.1:1")
    with Proxy(first.address) as proxy:
        async with AsyncGateway(proxy.address) as gateway:
            turn = gateway.run("go", keep_on_disconnect=True)
            heard = []
            with pytest.raises(grpc.RpcError) as ended:  # noqa: PT012 - the gateway is killed between two events
                async for event in turn:
                    heard.append(event.WhichOneof("event"))
                    if event.HasField("tool_call_started"):
                        first.kill()
                        other = {} if is_known else {"GATEWAY_STATE_DIR": str(tmp_path / "other")}
                        again = pair.start_gateway(GATEWAY_AUDIT_TARGET="127.0.0.1:1", **other)
                        proxy.lead_to(again.address)
            assert heard.count("turn_accepted") == 1
    if is_known:
        assert isinstance(ended.value, TurnFailed)
        assert turn.finished is not None
        assert "the gateway ended in the middle of this turn" in ended.value.details()
    else:
        assert ended.value.code() is grpc.StatusCode.NOT_FOUND
        assert turn.finished is None
    if not is_known:  # bubblewrap had just begun: its child may wait for the parent, which ended with the gateway
        pair.start_gateway(GATEWAY_AUDIT_TARGET="127.0.0.1:1")
    async with asyncio.timeout(30):
        while processes_of(f"--bind\0.\0{pair.workspace}"):
            await asyncio.sleep(0.1)


class _Cut(gateway_pb2_grpc.GatewayServiceServicer):
    """A gateway that is gone when its client has read the last event, and that knows nothing of the turn thereafter."""

    async def RunTurn(self, request, context):  # noqa: N802 - the names of RPCs are the proto's
        yield pb.TurnEvent(sequence=1, turn_accepted=pb.TurnAccepted(session_id="session", turn_id="turn"))
        yield pb.TurnEvent(sequence=2, turn_finished=pb.TurnFinished(stop_reason=pb.STOP_REASON_COMPLETED))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")

    async def AttachTurn(self, request, context):  # noqa: N802
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such turn")
        yield


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_turn_whose_last_event_came_has_ended_well_whatever_becomes_of_its_stream(kind):
    server = grpc.aio.server()
    gateway_pb2_grpc.add_GatewayServiceServicer_to_server(_Cut(), server)  # type: ignore[abstract] # the rest is not called

    def run(address: str) -> pb.TurnFinished | None:
        with Gateway(address) as gateway:
            return gateway.run("go").wait().finished

    async with started(server) as address:
        if kind == "sync":
            finished = await asyncio.to_thread(run, address)
        else:
            async with AsyncGateway(address) as gateway:
                finished = (await gateway.run("go").wait()).finished
    assert finished is not None
    assert finished.stop_reason == pb.STOP_REASON_COMPLETED
