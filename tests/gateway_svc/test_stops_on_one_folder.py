"""Gateways that share a state directory: what is stopped, or lifted, at one is so at the others and after a start."""

import json

from onrecord.gateway.v1 import control_pb2

from gateway_svc.stopping.stops import Stops
from tests.gateway_svc.test_stops import asked

EVERYTHING = {"everything": control_pb2.Everything()}


def lift(stop: control_pb2.Stop) -> control_pb2.ResumeRequest:
    return control_pb2.ResumeRequest(stop_id=stop.id, reason="over")


async def test_a_stop_that_one_gateway_lifted_is_not_written_again_by_another(tmp_path):
    first = Stops(tmp_path)
    lifted = (await first.stop(asked(EVERYTHING), "root")).stop
    second = Stops(tmp_path)
    assert second.in_force() == (lifted,)
    await first.resume(lift(lifted), "root")

    again = (await first.stop(asked(EVERYTHING), "root")).stop
    tool = (await second.stop(asked({"tool": "bash"}), "root")).stop
    kept = json.loads((tmp_path / "stops.json").read_text())
    assert {stop["id"] for stop in kept["stops"]} == {again.id, tool.id}
    assert kept["lifted"] == [lifted.id]
    assert {stop.id for stop in Stops(tmp_path).in_force()} == {again.id, tool.id}


async def test_a_stop_that_a_file_has_among_those_in_force_and_those_lifted_is_lifted(tmp_path):
    stop = (await Stops(tmp_path).stop(asked(EVERYTHING), "root")).stop
    path = tmp_path / "stops.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "lifted": [stop.id]}))

    again = Stops(tmp_path)
    assert again.in_force() == ()
    tool = (await again.stop(asked({"tool": "bash"}), "root")).stop
    assert [one["id"] for one in json.loads(path.read_text())["stops"]] == [tool.id]
