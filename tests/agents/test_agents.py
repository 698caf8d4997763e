"""Agents that nobody here wrote run for real, and the ledger's rows equal their own account, without content."""

import asyncio
import json
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from demo.model_server import ModelServer
from demo.script import Script, Step
from tests.agents.agents import AGENTS, CANARY, FIELDS, UNTOLD, Agent, Asked, Place, environment
from tests.agents.install import FOLDER, chosen, version
from tests.intake_svc.conftest import DoorProcess, House, open_house, wait_for

pytestmark = pytest.mark.agents

SECONDS = 240.0
CHOSEN = [AGENTS[name] for name in chosen() if name in AGENTS]


@pytest.mark.parametrize("agent", CHOSEN, ids=[agent.name for agent in CHOSEN])
async def test_the_rows_equal_the_agents_own_account_and_have_no_content(agent: Agent, tmp_path: Path):
    is_there(agent)
    with open_house(tmp_path / "house") as house:
        house.start_audit()
        door = house.start_door()
        said, requests = await run(agent, tmp_path, door)
        asked = agent.asked(tmp_path / "work")
        told_of = [one for one in asked if one.outcome != UNTOLD]
        rows = await asyncio.to_thread(arrived, house, "tool_call_log", len(told_of))
        costs = await asyncio.to_thread(arrived, house, "cost_log", len(told_of))
        assert [account(row) for row in rows] == [expected(one) for one in told_of], told(agent, rows, said)
        assert {row["engine"] for row in rows} == {agent.engine}
        assert len({row["session_id"] for row in rows}) == 1
        if agent.ids:
            assert [row["provider_call_id"] for row in rows] == [f"call_{at}" for at, _ in enumerate(told_of)]
        assert empty(rows[0]) == agent.empty, told(agent, rows, said)
        assert len(told_of) <= len(costs) <= requests
        assert content(house, door) == []
    print_line(agent, asked, rows, f"{len(costs)} of {requests}")


def is_there(agent: Agent) -> None:
    assert (FOLDER / agent.name / ".ready").exists(), f"{agent.name} {version(agent.name)} is not installed: see above"


async def run(agent: Agent, folder: Path, door: DoorProcess) -> tuple[str, int]:
    """Runs it to its end; returns what it printed, and how often it asked the model."""
    place_folders = folder / "home", folder / "work"
    for one in place_folders:
        one.mkdir(parents=True)
    (folder / "work" / "notes.txt").write_text(f"{CANARY} result\n")
    asked = agent.asked(folder / "work")
    steps = [Step(text=f"{CANARY} text", tool_calls=(one.call(number),)) for number, one in enumerate(asked)]
    script = Script(steps=(*steps, Step(text=f"Done, {CANARY}")), one_prompt=True, aside=Step(text="Notes"))
    async with ModelServer(script) as server:
        place = Place(*place_folders, server.url, door.grpc, door.http)
        launch = agent.launch(place)
        pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = await asyncio.create_subprocess_exec(
            *launch.command, cwd=place.work, env=environment(place, launch), **pipes
        )
        try:
            async with asyncio.timeout(SECONDS):
                printed, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        said = printed.decode(errors="replace")
        assert process.returncode == 0, said
        assert answered(server) == len(asked), f"the agent did not go on to the end of the script:\n{said}"
        return said, sum(b'"role"' in request.body for request in server.requests)


def answered(server: ModelServer) -> int:
    """How many results of tools came back to the model: those in the longest conversation."""
    bodies = [request.body.decode() for request in server.requests if request.method == "POST"]
    marks = ('"tool_result"', '"role":"tool"', '"function_call_output"', '"functionResponse"')
    compact = [json.dumps(json.loads(body), separators=(",", ":")) for body in bodies if body]
    return max(sum(body.count(mark) for mark in marks) for body in compact)


def arrived(house: House, table: str, count: int) -> list[dict[str, Any]]:
    """The rows of a table by their times, once there are so many; the comparison says what lacks."""
    with suppress(AssertionError):
        wait_for(lambda: len(house.rows(table)) >= count)
    return sorted(house.rows(table), key=lambda row: row["created_at"])


def account(row: dict[str, Any]) -> tuple[str, str, int | None]:
    return row["tool_name"], row["outcome"], row["exit_code"]


def expected(one: Asked) -> tuple[str, str, int | None]:
    return one.name, one.outcome, one.exit_code


def empty(row: dict[str, Any]) -> set[str]:
    return {name for name in FIELDS if row[name] in (None, "", 0)}


def told(agent: Agent, rows: list[dict[str, Any]], said: str) -> str:
    """What to look at when an agent's names moved."""
    lacks = sorted(empty(rows[0]) - agent.empty) if rows else ["all of it: no row came"]
    has = sorted(agent.empty - empty(rows[0])) if rows else []
    return (
        f"{agent.name} {version(agent.name)} is read by the dialect {agent.engine}. New in the first call's row: "
        f"empty are {lacks or 'none'}, filled are {has or 'none'}. It printed:\n{said}"
    )


def content(house: House, door: DoorProcess) -> list[str]:
    """The files of the door and the ledger that have the canary."""
    files = [path for path in house.folder.rglob("*") if path.is_file()]
    found = [str(path) for path in files if CANARY.encode() in path.read_bytes()]
    return [*found, *(["the door's log"] if CANARY in door.service.stderr_text() else [])]


def print_line(agent: Agent, asked: tuple[Asked, ...], rows: list[dict[str, Any]], costs: str) -> None:
    """A line of the table in docs/agents/README.md, which pytest shows with -rP."""
    lacks = ", ".join(name for name in FIELDS if name in empty(rows[0])) or "none"
    calls = ", ".join(one.outcome for one in asked)
    print(f"| {agent.name} {version(agent.name)} | {calls} | {len(rows)} | {costs} | {lacks} | none |")
