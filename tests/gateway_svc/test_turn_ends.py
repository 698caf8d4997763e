"""However a turn ends, its client's last event says so, with what the turn used."""

import asyncio
import errno
import os
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.conversations.files import session_file
from gateway_svc.conversations.files.transcript import Transcript
from gateway_svc.errors import EngineRateLimited
from gateway_svc.turns.turn import Turn
from tests.gateway_svc.scripted_turns import House, Runner, until
from tests.support.conversations import held_elsewhere


def details_of(status: status_pb2.Status) -> dict[str, Any]:
    """The details of a status, by their names."""
    told: dict[str, Any] = {}
    detail: AnyMessage
    for detail in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo):
            message = kind()
            if detail.Unpack(message):
                told[kind.__name__] = message
    return told


async def test_a_turn_that_fails_in_its_middle_tells_its_usage_and_why_and_when_to_come_again(tmp_path):
    async def work(turn: Turn) -> None:
        turn.account.add_step(audit_pb2.CostRow(input_tokens=7, output_tokens=3))
        raise EngineRateLimited("one", "m1", "come later", 429)

    finished = (await House(tmp_path, Runner(work=work)).run(input="hi"))[-1].turn_finished
    assert (finished.stop_reason, finished.usage.requests, finished.usage.input_tokens) == (pb.STOP_REASON_FAILED, 1, 7)
    assert finished.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    details = details_of(finished.error)
    assert (details["ErrorInfo"].reason, details["ErrorInfo"].domain) == ("ENGINE_RATE_LIMITED", "onrecord.dev")
    assert details["RetryInfo"].retry_delay.seconds == 5


async def test_a_defect_is_told_by_its_reference_alone(tmp_path):
    async def work(_turn: Turn) -> None:
        raise KeyError("what the user said")

    error = (await House(tmp_path, Runner(work=work)).run(input="hi"))[-1].turn_finished.error
    assert error.code == grpc.StatusCode.INTERNAL.value[0]
    assert "what the user said" not in str(error)
    assert details_of(error)["ErrorInfo"].metadata["reference"] in error.message


@pytest.mark.parametrize("how", ["well", "cancelled", "by an error of its own"])
async def test_a_full_disk_at_its_end_fails_a_turn_that_ended_well_and_hides_no_other_end(tmp_path, monkeypatch, how):
    async def work(turn: Turn) -> None:
        monkeypatch.setattr(Transcript, "append", full)
        monkeypatch.setattr(session_file, "write", full)
        if how == "by an error of its own":
            raise EngineRateLimited("one", "m1", "come later", 429)
        if how == "cancelled":
            asyncio.get_running_loop().call_soon(house.turns.cancel, pb.CancelTurnRequest(turn_id=turn.scope.turn_id))
            await asyncio.Event().wait()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    house = House(tmp_path, Runner(work=work))
    finished = (await house.run(input="hi"))[-1].turn_finished
    if how == "cancelled":
        assert finished.stop_reason == pb.STOP_REASON_CANCELLED
    else:
        assert finished.stop_reason == pb.STOP_REASON_FAILED
        reason = "DISK_FULL" if how == "well" else "ENGINE_RATE_LIMITED"
        assert details_of(finished.error)["ErrorInfo"].reason == reason


async def test_a_turn_that_fails_while_it_waits_for_its_session_tells_it_the_same_way(tmp_path):
    house = House(tmp_path, Runner())
    state = await house.turns.sessions.create(pb.SessionSettings())
    async with held_elsewhere(tmp_path, state.id):
        accepted, finished = await house.run(input="hi", session_id=state.id)
    assert accepted.HasField("turn_accepted")
    assert finished.turn_finished.error.code == grpc.StatusCode.ABORTED.value[0]
    assert details_of(finished.turn_finished.error)["ErrorInfo"].reason == "BUSY"


async def test_a_drain_tells_running_and_waiting_turns_that_they_are_cancelled(tmp_path):
    async def work(_turn: Turn) -> None:
        await asyncio.Event().wait()

    runner = Runner(work=work)
    house = House(tmp_path, runner)
    session_id = (await house.turns.sessions.create(pb.SessionSettings())).id
    turns = [asyncio.create_task(house.run(input=str(n), session_id=session_id)) for n in range(2)]
    await until(lambda: runner.seen and house.turns.waiting == 1)
    await house.turns.drain(0)
    for events in await asyncio.gather(*turns):
        assert events[0].HasField("turn_accepted")
        assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_CANCELLED
