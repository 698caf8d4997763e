"""What a connection does of its own: how long it waits for a server, and what it takes for the end of one."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from onrecord.common.v1 import common_pb2

from gateway_svc.tools.mcp import connection
from gateway_svc.tools.mcp.client import Client
from gateway_svc.tools.mcp.connection import McpServer
from gateway_svc.tools.mcp.settings import load_servers
from tests.tools_mcp import played
from tests.tools_mcp.test_strangers import plays

PATIENCE_SECONDS = 30


@pytest.mark.long
@pytest.mark.parametrize(("start_seconds", "limits"), [(7, [7, 14, 28]), (400, [400, 600, 600]), (None, [30, 60, 120])])
async def test_each_attempt_to_start_has_the_limit_of_the_file_doubled_up_to_the_most(
    tmp_path, monkeypatch, start_seconds, limits
):
    entry = {"command": sys.executable, "args": [str(Path(played.__file__))]}
    file = tmp_path / "mcp.json"
    file.write_text(
        json.dumps({"mcpServers": {"t": entry if start_seconds is None else {**entry, "start_seconds": start_seconds}}})
    )
    given: list[float] = []
    enough = asyncio.Event()

    async def never_ready(client: Client, link: Any, seconds: float, *, probe: bool = True) -> None:
        given.append(seconds)
        if len(given) == len(limits):
            enough.set()
        raise TimeoutError

    monkeypatch.setattr(Client, "open", never_ready)
    monkeypatch.setattr(connection, "FIRST_RETRY_SECONDS", 0.01)
    server = McpServer("t", load_servers(file, {})["t"], tmp_path, lambda: None)
    server.start()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await enough.wait()
    finally:
        await server.aclose()
    assert given[: len(limits)] == limits


CODES = [-32000, -32001, -32001.0, 408, -32800]
"""What SDKs use for a connection that was closed, a time-out (twice), HTTP's time-out and a cancelled request."""


async def test_the_code_of_an_error_is_the_server_s_and_no_time_out_and_no_lost_connection(open_desk):
    """Nothing is asked of the server again, its other calls go on, and each call ends at once."""
    desk = await open_desk(t=plays("told"))
    server = desk.servers._servers["t"]
    client = server._client
    waiting = asyncio.create_task(desk.run("t.go", '{"x": "wait"}'))
    for code in CODES:
        line = json.dumps({"id": 0, "error": {"code": code, "message": "no such record"}}).replace("0", "ID", 1)
        async with asyncio.timeout(PATIENCE_SECONDS):
            result = await desk.run("t.go", json.dumps({"x": line}))
        assert (result.outcome, result.error, result.text) == (
            common_pb2.OUTCOME_FAILED,
            "the MCP server t refused the call (other)",
            "Error: no such record",
        ), code
        assert server._client is client, code
        assert not client.lost.is_set(), code
        assert not server._relist.is_set(), code
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_a_time_out_is_what_our_own_clock_says(open_desk):
    desk = await open_desk(t=plays("told", timeout_seconds=0.2))
    async with asyncio.timeout(PATIENCE_SECONDS):
        result = await desk.run("t.go", '{"x": "wait"}')
    assert (result.outcome, result.error) == (
        common_pb2.OUTCOME_TIMED_OUT,
        "the MCP server t did not answer within 0.2 s",
    )
