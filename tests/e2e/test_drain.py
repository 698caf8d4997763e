"""The end of a gateway that is at work."""

import asyncio
import signal
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Script, Step
from tests.e2e.conftest import run_turn
from tests.e2e.drains import SCRIPT, drain_under_load

UNTIL_TOLD = "until [ -e go ]; do sleep 0.02; done"
TOLD = Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": UNTIL_TOLD}),)), Step(text="Done.")))
ENDLESS = Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": "sleep 60"}),)),))


async def begun(gateway) -> Any:
    """A turn whose tool runs."""
    call = gateway.RunTurn(pb.RunTurnRequest(input="go"))
    async for event in call:
        if event.HasField("tool_call_started"):
            return call
    raise AssertionError("the turn ended")


@pytest.mark.long
async def test_a_running_turn_may_end_by_itself_while_no_other_begins(make_pair):
    """Health says NOT_SERVING, a new turn is refused with UNAVAILABLE and a RetryInfo, the running one is whole."""
    pair = await make_pair(TOLD)
    pair.start_audit()
    service = pair.start_gateway(GATEWAY_DRAIN_SECONDS="60")
    gateway = await pair.gateway(service)
    call = await begun(gateway)
    async with grpc.aio.insecure_channel(service.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
            pass  # it has not asked its model server yet
        service.process.send_signal(signal.SIGTERM)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await run_turn(gateway)
        watch.cancel()
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    status: Any = rpc_status.from_call(refused.value)  # type: ignore[arg-type]  # it has what a call has
    assert any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details)
    (pair.workspace / "go").touch()
    events = [event async for event in call]
    assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED
    assert await asyncio.to_thread(service.process.wait, 60) == 0
    assert pair.query("SELECT outcome FROM tool_call_log") == [("succeeded",)]


@pytest.mark.long
async def test_a_turn_that_takes_longer_than_its_part_is_cancelled_and_on_the_record(make_pair):
    pair = await make_pair(ENDLESS)
    pair.start_audit()
    service = pair.start_gateway(GATEWAY_DRAIN_SECONDS="4")
    call = await begun(await pair.gateway(service))
    service.process.send_signal(signal.SIGTERM)
    events = [event async for event in call]
    assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_CANCELLED
    assert await asyncio.to_thread(service.process.wait, 60) == 0
    pair.start_gateway()
    await pair.rows(1)
    assert pair.query("SELECT outcome FROM tool_call_log") == [("cancelled",)]


@pytest.mark.long
async def test_a_second_signal_ends_it_at_once_and_the_call_is_on_the_record_as_interrupted(make_pair):
    pair = await make_pair(ENDLESS)
    pair.start_audit()
    service = pair.start_gateway(GATEWAY_DRAIN_SECONDS="60")
    await begun(await pair.gateway(service))
    service.process.send_signal(signal.SIGTERM)
    while "turns.draining" not in service.stderr_text():
        await asyncio.sleep(0.01)
    service.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(service.process.wait, 60) == -signal.SIGTERM
    pair.start_gateway()
    await pair.rows(1)
    assert pair.query("SELECT outcome FROM tool_call_log") == [("interrupted",)]


@pytest.mark.long(nightly=True)
async def test_of_many_running_turns_none_hangs_and_every_call_is_on_the_record(make_pair):
    """`make load` does the same with 500."""
    step, end = SCRIPT.steps
    longer = SCRIPT.model_copy(update={"steps": (step.model_copy(update={"delay_ms": 1500}), end)})
    pair = await make_pair(longer)  # no turn ends by itself in its half of the drain time
    streams = await drain_under_load(pair, 60, 12)
    assert len(streams.stop_reasons) + len(streams.refused) + streams.cut == 60
    assert set(streams.stop_reasons) <= {pb.STOP_REASON_COMPLETED, pb.STOP_REASON_CANCELLED}
    assert streams.cut == 0


@pytest.mark.load
async def test_of_500_running_turns_none_hangs_and_every_call_is_on_the_record(make_pair):
    pair = await make_pair(SCRIPT)
    streams = await drain_under_load(pair, 500, 20)
    assert len(streams.stop_reasons) + len(streams.refused) + streams.cut == 500
    assert set(streams.stop_reasons) <= {pb.STOP_REASON_COMPLETED, pb.STOP_REASON_CANCELLED}
    assert streams.cut == 0
