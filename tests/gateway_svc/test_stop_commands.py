"""stop, stops and resume say what was so before: a stop that holds already, one that was lifted, a name nobody has."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from onrecord.gateway.v1 import control_pb2_grpc
from onrecord.gateway.v1.control_pb2 import Everything, StopAgentsRequest, StopScope
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from gateway_svc.__main__ import program
from gateway_svc.assembly import assemble
from gateway_svc.servicer import STATUSES
from gateway_svc.stopping.service import ControlServicer
from gateway_svc.stopping.stops import Stops
from service_kit.errors import ErrorInterceptor
from service_kit.producing.stop import scope_text
from service_kit.server import build_server
from tests.gateway_svc.test_assembly import settings
from tests.support.command_line import Result, invoke
from tests.support.grpc_server import started


class Gateway:
    """What stops agents, at an address."""

    def __init__(self, address: str) -> None:
        self._at = ["--target", address]

    async def type(self, line: str, *words: str) -> Result:
        return await asyncio.to_thread(invoke, program, [*line.split(), *words, *self._at])


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Gateway]:
    server = build_server([ErrorInterceptor(STATUSES)])
    servicer = ControlServicer(Stops(folder), lambda scope: scope_text(scope) not in ("engine=olama", "tool=bsh"))
    control_pb2_grpc.add_ControlServiceServicer_to_server(servicer, server)
    async with started(server) as address:
        yield Gateway(address)


@pytest.fixture
async def gateway(tmp_path) -> AsyncIterator[Gateway]:
    with capture_logs():  # else they stand among what commands print
        async with served(tmp_path) as there:
            yield there


async def stopped(gateway: Gateway, line: str, reason: str) -> str:
    told = await gateway.type(f"{line} --json --reason", reason)
    return str(json.loads(told.stdout)["stop"]["id"])


async def test_what_was_lifted_before_is_no_news_however_it_is_named(gateway):
    stop = await stopped(gateway, "stop --engine ollama", "a drill")
    lifted = await gateway.type("resume --reason over", stop)
    assert (lifted.exit_code, lifted.stdout.startswith(f"lifted: {stop}  20")) == (0, True)
    assert lifted.stdout.endswith("engine=ollama  a drill\n")
    for name in (stop, stop[-8:]):
        again = await gateway.type("resume --reason over", name)
        assert (again.exit_code, again.stdout) == (1, "")
        assert "`gateway-svc stops` lists those in force, `audit-svc controls --kind resume` those that" in again.stderr
    assert f"the stop {stop} was already lifted" in (await gateway.type("resume --reason over", stop)).stderr


async def test_which_stop_was_lifted_is_said_where_only_last_was_typed(gateway):
    for engine, reason in (("ollama", "first"), ("claude", "second")):
        await stopped(gateway, f"stop --engine {engine}", reason)
    for scope in ("engine=claude  second", "engine=ollama  first"):
        assert (await gateway.type("resume @last --reason over")).stdout.endswith(f"{scope}\n")
    none = await gateway.type("resume @last --reason over")
    assert (none.exit_code, none.stderr.startswith("no stop is in force: ")) == (1, True)
    stop = await stopped(gateway, "stop --everything", "third")
    told = json.loads((await gateway.type("resume @last --json --reason over")).stdout)
    assert (told["stop_id"], told["lifted"], told["stop"]["reason"]) == (stop, True, "third")


async def test_a_part_of_an_id_that_is_too_short_is_told_so(gateway):
    stop = await stopped(gateway, "stop --engine ollama", "a drill")
    told = await gateway.type("resume --reason over", stop[-3:])
    assert (told.exit_code, told.stdout) == (1, "")
    assert "; a part of an id needs at least 4 characters" in told.stderr


async def test_that_no_stop_is_in_force_is_said_to_programs_too(gateway):
    told = await gateway.type("stops --json")
    assert (told.stdout, json.loads(told.stderr)) == ("", {"note": "no stop is in force"})


async def test_a_stop_that_holds_already_is_told_with_its_own_reason(gateway):
    stop = await stopped(gateway, "stop --engine ollama", "a drill")
    again = await gateway.type("stop --engine ollama --reason another")
    assert again.exit_code == 0
    begun, *counts = again.stdout.splitlines()
    assert begun.startswith(f"already stopped: {stop}  20")
    assert begun.endswith("engine=ollama  a drill")
    assert counts == ["ended: 0 turns, and 0 tool calls of turns that go on", "still running: 0"]
    assert "this was stopped already: the stop in force stands, with its own reason" in again.stderr
    assert json.loads((await gateway.type("stop --engine ollama --json --reason x")).stdout)["was_in_force"] is True


@pytest.mark.parametrize(("scope", "kind"), [("--engine olama", "engine"), ("--tool bsh", "tool")])
async def test_a_name_that_nobody_has_is_taken_and_told(gateway, scope, kind):
    told = await gateway.type(f"stop {scope} --reason x")
    assert told.exit_code == 0
    assert f"no {kind} of that name is known here" in told.stderr
    assert "known here" not in (await gateway.type("stop --engine ollama --reason x")).stderr


async def unknown(control: ControlServicer, *scopes: StopScope) -> list[StopScope]:
    """Those that a stop names and the gateway has not."""
    context: Any = None
    with capture_logs():
        asked = [StopAgentsRequest(scope=scope, reason="a drill") for scope in scopes]
        return [one.scope for one in asked if (await control.StopAgents(one, context)).is_unknown]


async def test_a_gateway_knows_its_engines_and_tools_and_those_that_patterns_mean(monkeypatch, tmp_path):
    mcp = tmp_path / "mcp.toml"
    mcp.write_text('[mcpServers.files]\ncommand = "true"\n')
    at = {"GATEWAY_OLLAMA_URL": "http://127.0.0.1:9", "GATEWAY_OLLAMA_MODEL": "m", "GATEWAY_MCP_FILE": str(mcp)}
    gateway = assemble(settings(monkeypatch, tmp_path / "state", **at), CollectorRegistry())
    try:
        assert not await unknown(gateway.control, StopScope(engine="ollama"), StopScope(everything=Everything()))
        tools = [StopScope(tool=name) for name in ("bash", "ba*", "files.*", "files.read", "fi*")]
        assert not await unknown(gateway.control, *tools)
        others = [StopScope(engine="openai"), *(StopScope(tool=name) for name in ("bsh", "Bash", "f.*"))]
        assert await unknown(gateway.control, *others) == others, "no Claude is here"
    finally:
        async with gateway.started():
            pass
