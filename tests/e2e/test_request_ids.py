"""A turn that is asked for by a request_id runs once, whatever becomes of its client, its stream and its gateway."""

import asyncio
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Script, Step
from tests.e2e.conftest import error_of, run_turn, text_of

COMMAND = "echo ran >> ran.log; until [ -e go ]; do sleep 0.02; done"
WORK = Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": COMMAND}),)), Step(text="Done.")))


async def begin(pair, gateway, **request) -> tuple[Any, str, int]:
    """A turn in the middle of its tool call: the call, the turn's id, the last event's number."""
    call = gateway.RunTurn(pb.RunTurnRequest(input="go", **request))
    turn_id = ""
    async for event in call:
        turn_id = turn_id or event.turn_accepted.turn_id
        if event.HasField("tool_call_started"):
            break
    while not (pair.workspace / "ran.log").exists():
        await asyncio.sleep(0.01)
    return call, turn_id, event.sequence


@pytest.mark.long
async def test_a_client_that_lost_its_stream_goes_on_with_it_and_a_retry_runs_no_tool_again(make_pair):
    pair = await make_pair(WORK)
    pair.start_audit()
    gateway = await pair.gateway(pair.start_gateway())
    call, turn_id, sequence = await begin(pair, gateway, request_id="r-1", keep_on_disconnect=True)
    call.cancel()
    rest = gateway.AttachTurn(pb.AttachTurnRequest(turn_id=turn_id, after_sequence=sequence))
    (pair.workspace / "go").touch()
    attached = [event async for event in rest]
    again = await run_turn(gateway, request_id="r-1", keep_on_disconnect=True)
    assert attached == again[sequence:]
    assert text_of(again) == "Done."
    assert (pair.workspace / "ran.log").read_text() == "ran\n"
    assert (await gateway.CancelTurn(pb.CancelTurnRequest(turn_id=turn_id))).turn_id == turn_id
    with pytest.raises(grpc.aio.AioRpcError) as other:
        await run_turn(gateway, request_id="r-1", keep_on_disconnect=True, input="something else")
    assert other.value.code() == grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.long
async def test_a_turn_that_its_gateway_did_not_survive_is_told_and_never_run_again(make_pair):
    pair = await make_pair(WORK)
    pair.start_audit()
    first = pair.start_gateway()
    call, turn_id, _ = await begin(pair, await pair.gateway(first), request_id="r-1")
    first.kill()
    assert await call.code() == grpc.StatusCode.UNAVAILABLE
    gateway = await pair.gateway(pair.start_gateway())
    events = await run_turn(gateway, request_id="r-1")
    info = error_details_pb2.ErrorInfo()
    error_of(events).details[0].Unpack(info)
    assert (events[0].turn_accepted.turn_id, info.reason) == (turn_id, "INTERRUPTED")
    assert (pair.workspace / "ran.log").read_text() == "ran\n"
    attached = [event async for event in gateway.AttachTurn(pb.AttachTurnRequest(turn_id=turn_id, after_sequence=1))]
    assert [event.turn_finished for event in attached] == [events[-1].turn_finished]
    assert (await gateway.CancelTurn(pb.CancelTurnRequest(turn_id=turn_id))).turn_id == turn_id
