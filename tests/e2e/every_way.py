"""The ways in which a turn gets to run tools, and a gateway on which all of them run and wait."""

import asyncio
import json
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import control_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.model_server import ModelServer
from demo.processes import Service
from demo.script import Call, Script, Step
from gateway_svc.stopping.stop import ended
from service_kit.access.roles import Role, make_token
from tests.e2e.conftest import Pair
from tests.e2e.test_mcp import mcp_file
from tests.e2e.test_stops import EVERYTHING, IGNORES, SLEEPS, bash, until
from tests.e2e.test_workers import connect
from tests.support import claude_cli
from tests.support.claude_cli import init, message, spent, tool_result, tool_use

DONE = Step(text="Done.")
SLOW = "/pages/slow"
CLAUDES = tool_use("toolu_1", "Bash", {"command": "sleep 600"})
HELPER = common_pb2.Software(name="helper")
LABELS = {"team": "a"}
OF_TURNS: Mapping[str, control_pb2.StopScope] = {
    "everything": EVERYTHING,
    "principal": control_pb2.StopScope(principal="ada"),
    "agent": control_pb2.StopScope(agent="helper"),
    "label": control_pb2.StopScope(label=control_pb2.Label(key="team", value="a")),
    "ollama": control_pb2.StopScope(engine="ollama"),
    "openai": control_pb2.StopScope(engine="openai"),
    "claude": control_pb2.StopScope(engine="claude"),
}
OF_TOOLS = ("ba*", "t.*", "webfetch", "write", "Bash")


@dataclass(frozen=True)
class Way:
    """How a turn gets to run tools."""

    tools: tuple[str, ...]
    """Those that it calls."""
    calls: tuple[Call, ...] = ()
    runs_on: str = "ollama"
    """The engine that stops see."""
    settings: Mapping[str, Any] = field(default_factory=dict)


WAYS = {
    "loop": Way(("bash",), (bash(SLEEPS),)),
    "ignores signals": Way(("bash",), (bash(IGNORES),)),
    "parallel": Way(("bash",) * 3, (bash(SLEEPS), bash(IGNORES), bash(SLEEPS))),  # of which two run at once
    "mcp": Way(("t.sleep",), (Call(name="t.sleep", arguments={"seconds": 600, "flag": "FLAG"}),)),
    "webfetch": Way(("webfetch",), (Call(name="webfetch", arguments={"url": "SLOW"}),)),
    "asks": Way(("write",), (Call(name="write", arguments={"path": "made.txt", "content": "x"}),)),
    "fallback": Way(
        ("bash",),
        (bash(SLEEPS),),
        settings={"engine": "anthropic", "fallback": pb.EngineChoice(engine="ollama")},
    ),
    "queued": Way(()),
    "shadow": Way((), runs_on="openai", settings={"shadows": [pb.EngineChoice(engine="openai")]}),
    "claude": Way(("Bash",), runs_on="claude", settings={"engine": "claude"}),
}


@dataclass
class Running:
    """A turn, as its client sees it."""

    way: Way
    events: list[pb.TurnEvent]
    task: "asyncio.Task[None]"

    @property
    def turn_id(self) -> str:
        return self.events[0].turn_accepted.turn_id


class Stage:
    """A gateway whose turns wait for ever once they run, its callers ada, bob and root, and all that it starts."""

    def __init__(self, pair: Pair, slow: ModelServer, workers: int, folder: Path) -> None:
        self.pair, self.slow, self.workers = pair, slow, workers
        self.plays, self.flag, self.pids = folder / "claude", folder / "flag", pair.workspace / "pids"
        self.started = set[int]()
        self.plays.mkdir()
        self.pids.mkdir()
        roles = {"ada": Role.CALLER, "bob": Role.CALLER, "root": Role.ADMIN}
        made = {name: make_token(name, [role]) for name, role in roles.items()}
        self.tokens = {name: token for name, (token, _) in made.items()}
        (folder / "callers.toml").write_text("\n".join(table for _, table in made.values()))
        program = shlex.join([sys.executable, claude_cli.__file__, str(self.plays)])
        self.env = {
            **mcp_file(folder, timeout_seconds=250),
            "GATEWAY_TOKENS_FILE": str(folder / "callers.toml"),
            "GATEWAY_TOOLS": "bash,webfetch,write=ask",
            "GATEWAY_BASH_SANDBOX": "off_as_root",
            "GATEWAY_MAX_PARALLEL_TOOLS": "2",
            "GATEWAY_ANTHROPIC_URL": "http://127.0.0.1:1",
            "GATEWAY_OPENAI_URL": slow.openai_url,
            "GATEWAY_WEBFETCH_ALLOW": slow.url.removeprefix("http://"),
            "GATEWAY_CLAUDE_COMMAND": program,
            "GATEWAY_AUDIT_CLAUDE": "on",
            "GATEWAY_WORKERS": str(workers),
        }

    async def start(self) -> Service:
        service = self.pair.start_gateway(**self.env)
        self.ada, self.bob, self.root = [
            await connect(self.pair, service, self.tokens[name], listening=self.workers)
            for name in ("ada", "bob", "root")
        ]
        self._turns = 0
        await self.until(lambda: service.stderr_text().count('"mcp.connected"') >= self.workers, "MCP servers")
        return service

    async def until(self, holds: Callable[[], bool], what: Any) -> None:
        """Waits until something holds."""
        try:
            await until(holds)
        except TimeoutError:
            raise AssertionError(f"waited in vain: {what}") from None

    def begun(self) -> list[int]:
        """All processes that calls have started since the last look."""
        pids = [int(path.name) for path in self.pids.iterdir()]
        for path in self.pids.iterdir():
            path.unlink()
        journal = self.plays / "journal.jsonl"
        for line in journal.read_text().splitlines() if journal.exists() else ():
            entry = json.loads(line)
            pids += [entry[name] for name in ("pid", "spawned") if name in entry]
        journal.unlink(missing_ok=True)
        self.started.update(pids)
        return pids

    async def run(self, name: str, ends: Any = None, **request: Any) -> Running:
        """Begins a turn, and returns when the gateway has taken it.

        Raises:
            grpc.aio.AioRpcError: it was refused.
        """
        way = WAYS[name]
        calls = [call.model_copy(update={"arguments": self._filled(call)}) for call in way.calls]
        self.pair.model.script = Script(steps=(Step(tool_calls=tuple(calls)) if calls else DONE, DONE))
        self._turns += 1
        ends = ends or self.ada
        fields = {"input": "go", "agent": HELPER, **request}
        if not fields.keys() & {"session_id", "new_session"}:
            fields["new_session"] = pb.SessionSettings(**{"labels": LABELS, **way.settings})
        call = ends[self._turns % len(ends)].RunTurn(pb.RunTurnRequest(**fields))
        events = [await call.read()]

        async def read() -> None:
            async for event in call:
                events.append(event)

        return Running(way, events, asyncio.create_task(read()))

    def _filled(self, call: Call) -> dict[str, Any]:
        places = {"FLAG": str(self.flag), "SLOW": f"{self.slow.url}{SLOW}"}
        assert isinstance(call.arguments, dict)
        return {name: places.get(value, value) for name, value in call.arguments.items()}

    async def begin(self, name: str) -> Running:
        """Begins a turn, and returns when its tool runs."""
        self.flag.unlink(missing_ok=True)
        begun, asked = len(list(self.pids.iterdir())), len(self.slow.requests)
        self.play(goes_on=False)
        if name == "queued":
            first = await self.begin("loop")
            self.queued_behind = first
            return await self.run(name, session_id=first.events[0].turn_accepted.session_id)
        turn = await self.run(name)
        commands = min(2, sum(call.name == "bash" for call in turn.way.calls))
        await self.until(
            {
                "mcp": self.flag.exists,
                "webfetch": lambda: len(self.slow.requests) > asked,
                "shadow": lambda: len(self.slow.requests) > asked,
                "asks": lambda: any(event.tool_call_started.HasField("pending") for event in turn.events),
                "claude": lambda: '"spawned"' in _text(self.plays / "journal.jsonl"),
            }.get(name, lambda: len(list(self.pids.iterdir())) == begun + commands),
            (name, begun, sorted(self.pids.iterdir()), turn.events),
        )
        return turn

    def play(self, *, goes_on: bool) -> None:
        """What Claude's program does once its call was answered."""
        refused = tool_result("toolu_1", "refused", error=True)
        done = [refused, *message("msg_2", "Done."), claude_cli.result({claude_cli.MODEL: spent(2, 0.001)})]
        rest: list[Any] = done if goes_on else [{"do": "spawn"}, {"do": "sleep", "seconds": 600}]
        lines = [init(), *message("msg_1", tools=[CLAUDES]), {"do": "ask", "call": CLAUDES}, *rest]
        (self.plays / "play-0.json").write_text(json.dumps({"lines": lines, "ignore_term": True}))

    async def stop(self, scope: control_pb2.StopScope) -> control_pb2.StopAgentsResponse:
        request = control_pb2.StopAgentsRequest(scope=scope, reason="a drill")
        answer: control_pb2.StopAgentsResponse = await self.root[-1].StopAgents(request)
        return answer

    async def resume(self, stops: Iterable[control_pb2.Stop]) -> None:
        for stop in stops:
            await self.root[0].Resume(control_pb2.ResumeRequest(stop_id=stop.id, reason="over"))

    async def rows(self, turns: Collection[Running]) -> dict[str, list[audit_pb2.AuditRow]]:
        """The rows of turns, by their ids, once all are there."""
        wanted = {turn.turn_id: len(turn.way.tools) for turn in turns}
        found: dict[str, list[audit_pb2.AuditRow]] = {}

        async def look() -> None:
            while {turn_id: len(found.get(turn_id, ())) for turn_id in wanted} != wanted:
                rows = await self.pair.rows(0)
                found.clear()
                for row in rows:
                    if row.turn_id in wanted:
                        found.setdefault(row.turn_id, []).append(row)
                await asyncio.sleep(0.02)

        try:
            await asyncio.wait_for(look(), 30)
        except TimeoutError:
            came = {turn.way.tools: found.get(turn.turn_id) for turn in turns}
            raise AssertionError(f"the rows of these did not come: {came}") from None
        return found


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def says(row: audit_pb2.AuditRow, stop: control_pb2.Stop) -> str:
    """Whether a row says that a stop refused its call, or ended it."""
    decided = row.decision
    if row.outcome == common_pb2.OUTCOME_DENIED:
        assert (decided.source, decided.verdict) == (common_pb2.DECISION_SOURCE_RULE, common_pb2.VERDICT_DENIED), row
        assert (decided.rule, decided.reason) == (f"stop:{stop.id}", "a drill"), row
        return "refused"
    assert row.outcome == common_pb2.OUTCOME_CANCELLED, row
    assert row.error == ended(stop), row
    assert (decided.verdict, bool(decided.source)) == (common_pb2.VERDICT_ALLOWED, True), row
    return "ended"


def named(status: status_pb2.Status) -> str:
    """The stop that a status names."""
    assert status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "STOPPED"
    return str(info.metadata["stop_id"])


async def refused_by(run: Callable[..., Any], *args: Any, **request: Any) -> str:
    """The stop that refuses a turn."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await run(*args, **request)
    assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION, error.value
    [data] = [value for name, value in error.value.trailing_metadata() if name == "grpc-status-details-bin"]
    return named(status_pb2.Status.FromString(data))
