"""A server that breaks the protocol, or no longer answers at all, costs a call and never the session."""

import sys
from pathlib import Path
from typing import Any

import pytest
from onrecord.common.v1 import common_pb2

from gateway_svc.tools.mcp import connection
from gateway_svc.tools.mcp.settings import ServerSettings
from tests.support import raw_mcp_server


def raw(*options: str, **more: Any) -> ServerSettings:
    return ServerSettings(command=sys.executable, args=(str(Path(raw_mcp_server.__file__)), *options), **more)


@pytest.mark.long
async def test_a_server_that_is_frozen_is_started_again(open_desk, monkeypatch):
    monkeypatch.setattr(connection, "LIST_SECONDS", 0.5)
    desk = await open_desk(t=raw(timeout_seconds=2))
    result = await desk.run("t.go", '{"do": "freeze"}')
    assert result.outcome == common_pb2.OUTCOME_TIMED_OUT
    await desk.until(lambda: not desk.servers._servers["t"]._up.is_set())
    await desk.until(desk.servers._servers["t"]._up.is_set)
    assert (await desk.run("t.go")).text == "gone"


@pytest.mark.long
async def test_a_server_that_does_not_say_which_tools_it_has_now_is_started_again(open_desk, monkeypatch):
    monkeypatch.setattr(connection, "LIST_SECONDS", 0.5)
    desk = await open_desk(t=raw("deaf"))
    server = desk.servers._servers["t"]
    connected = server._client
    assert (await desk.run("t.go")).text == "gone"
    await desk.until(lambda: server._client not in (None, connected))
    assert (await desk.run("t.go")).text == "gone"
