"""Three workers behind certificates, tokens and a rate: each caller is known, and no worker has limits of its own."""

import asyncio
from typing import Any

import grpc
import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from demo.script import Call, Script, Step
from tests.e2e.test_security import Guarded, bearer, rows, secure
from tests.e2e.test_workers import until
from tests.support.processes import children_of

pytestmark = pytest.mark.long

WORKERS = 3
CONNECTIONS = 9
WAIT = "echo ran >> ran.log; until [ -e go ]; do sleep 0.02; done"
WORK = Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": WAIT}),)), Step(text="Done.")))


async def start(make_pair: Any, tmp_path: Any, **settings: str) -> tuple[Guarded, list[Any]]:
    """Three workers and connections of their own to them, none of which brings a token yet."""
    guarded = Guarded(await make_pair(WORK), tmp_path)
    guarded.add("gateway", "caller", name="ann")
    guarded.add("gateway", "caller", name="ben")
    guarded.start()
    guarded.gateway.terminate()
    service = guarded.pair.start_gateway(**guarded.gateway_env, GATEWAY_WORKERS=str(WORKERS), **settings)
    await until(lambda: service.stderr_text().count("service.listening") >= WORKERS)
    assert len(children_of(service.pid)) == WORKERS
    channels = [secure(service.address, guarded.ca, guarded.client) for _ in range(CONNECTIONS)]
    for channel in channels:
        await guarded.pair._stack.enter_async_context(channel)
    return guarded, [gateway_pb2_grpc.GatewayServiceStub(channel) for channel in channels]


async def test_a_caller_is_who_it_is_whichever_worker_its_call_is_handed_to(make_pair, tmp_path):
    guarded, ends = await start(make_pair, tmp_path)
    ann, ben = (bearer(guarded.tokens[name]) for name in ("ann", "ben"))
    request = pb.RunTurnRequest(input="go", request_id="r-1", keep_on_disconnect=True)
    turns = [end.RunTurn(request, metadata=ann) for end in ends]
    ids = {(await turn.read()).turn_accepted.turn_id for turn in turns}
    assert len(ids) == 1, "the same request is one turn, also when its worker is asked by the others at once"
    [turn_id] = ids
    await until(lambda: (guarded.pair.workspace / "ran.log").exists())
    for end in ends:
        with pytest.raises(grpc.aio.AioRpcError) as stranger:
            await end.CancelTurn(pb.CancelTurnRequest(turn_id=turn_id), metadata=ben)
        assert stranger.value.code() == grpc.StatusCode.NOT_FOUND, "a turn of another is not there"
        with pytest.raises(grpc.aio.AioRpcError) as nobody:
            await end.CancelTurn(pb.CancelTurnRequest(turn_id=turn_id))
        assert nobody.value.code() == grpc.StatusCode.UNAUTHENTICATED
    own = (
        await ends[-1]
        .RunTurn(pb.RunTurnRequest(input="go", request_id="r-1", keep_on_disconnect=True), metadata=ben)
        .read()
    )
    assert own.turn_accepted.turn_id != turn_id, "a request id is its caller's own"
    (guarded.pair.workspace / "go").touch()
    for end, metadata, id_ in ((ends[0], ben, own.turn_accepted.turn_id), (ends[-1], ann, turn_id)):
        events = [event async for event in end.AttachTurn(pb.AttachTurnRequest(turn_id=id_), metadata=metadata)]
        assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
    assert (guarded.pair.workspace / "ran.log").read_text() == "ran\n" * 2, "a turn for each caller"
    assert sorted(row.principal for row in await rows(guarded, 2)) == ["ann", "ben"]


async def test_a_callers_rate_is_the_gateways_over_certificates_too(make_pair, tmp_path):
    guarded, ends = await start(make_pair, tmp_path, GATEWAY_RATE_PER_SECOND="0.05")
    ann, ben = (bearer(guarded.tokens[name]) for name in ("ann", "ben"))

    async def ask(end: Any, metadata: Any) -> str:
        try:
            await end.ListEngines(pb.ListEnginesRequest(), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        return "answered"

    asked = await asyncio.gather(*(ask(end, ann) for end in ends))
    refused = [one for one in asked if one != "answered"]
    assert asked.count("answered") == 1, "whichever workers were asked"
    assert all(one.startswith("RESOURCE_EXHAUSTED: more than 0.05 calls a second") for one in refused)
    assert await ask(ends[0], ben) == "answered", "another caller has a rate of its own"
