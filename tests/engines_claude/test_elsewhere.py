"""Tools that the model's server runs itself: nobody is asked before, so a stop ends the turn."""

import asyncio

import pytest
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import control_pb2

from gateway_svc.stopping.turns import StoppableTurn
from tests.support.claude_cli import assistant, init

STOP = control_pb2.Stop(id="stop-1", scope=control_pb2.StopScope(tool="search"), reason="a drill")


@pytest.mark.parametrize("kind", ["server_tool_use", "mcp_tool_use", "later_tool_use"])
async def test_a_stop_of_a_tool_that_runs_elsewhere_ends_its_turn_whatever_its_name_and_type(stage, kind):
    used = {"type": kind, "id": "srvtoolu_1", "name": "search", "input": {"query": "tides"}}
    stage.play([init(), assistant(used), {"do": "sleep", "seconds": 600}])
    turn = stage.turn()
    turn.stops = StoppableTurn(in_force=lambda: (STOP,))
    running = asyncio.create_task(stage.runner().run(turn))
    turn.stops.begin(running)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert turn.stops.stop == STOP
    (row,) = stage.ledger.calls
    assert row.outcome == common_pb2.OUTCOME_CANCELLED
