"""What a killed gateway had begun ends when the next one starts, and not before its own gateway has ended."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.processes import run_command
from demo.script import Call, Script, Step
from tests.e2e.conftest import SECONDS_TO_ARRIVE
from tests.engines_claude.stage import is_running

COMMAND = "echo $$ > shell; setsid sh -c 'echo $$ > escaped; exec sleep 600' & sleep 600"


@pytest.mark.long
async def test_what_a_killed_gateway_had_begun_ends_when_the_next_one_starts(make_pair):
    pair = await make_pair(Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": COMMAND}),)),)))
    first = pair.start_gateway(GATEWAY_BASH_SANDBOX="off_as_root")
    gateway = await pair.gateway(first)
    turn = gateway.RunTurn(pb.RunTurnRequest(input="go"))
    files = [pair.workspace / name for name in ("shell", "escaped")]
    await _until(lambda: all(map(_has_text, files)))
    begun = [int(file.read_text()) for file in files]

    pair.start_gateway().terminate()
    assert all(map(is_running, begun)), "another gateway is no reason to end them"

    first.kill()
    assert await turn.code() == grpc.StatusCode.UNAVAILABLE
    assert all(map(is_running, begun)), "nothing ends them when their gateway is killed"

    pair.start_gateway()
    await _until(lambda: not any(map(is_running, begun)))
    assert len(list((pair.state_dir / "runs").iterdir())) == 1, "the names of those that have ended are gone"


@pytest.mark.long
@pytest.mark.parametrize(
    ("steps", "why"),
    [
        (
            (Step(tool_calls=(Call(name="bash", arguments={"command": "touch begun; sleep 600"}),)),),
            "the gateway ended during the last turn",
        ),
        ((Step(text="late", delay_ms=600_000),), "no row says why the last turn failed: its gateway was stopped"),
    ],
    ids=["during a call", "during a request"],
)
async def test_show_says_what_is_known_of_a_turn_whose_gateway_was_killed(make_pair, steps, why):
    pair = await make_pair(Script(steps=steps, check=False))
    pair.start_audit()
    first = pair.start_gateway(GATEWAY_BASH_SANDBOX="off_as_root")
    gateway = await pair.gateway(first)
    turn = gateway.RunTurn(pb.RunTurnRequest(input="go"))
    session = (await turn.read()).turn_accepted.session_id
    where = {"AUDIT_LISTEN": pair.audit_address}

    async def shows(words: str) -> None:
        async with asyncio.timeout(SECONDS_TO_ARRIVE):
            while words not in (await asyncio.to_thread(run_command, "audit_svc", where, "show", session)).stdout:
                await asyncio.sleep(0.05)

    await shows("the last turn has no end on record")
    if "begun" in str(steps):
        await _until((pair.workspace / "begun").exists)
    first.kill()
    await turn.code()
    pair.start_gateway()
    await shows(why)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS_TO_ARRIVE):
        while not holds():
            await asyncio.sleep(0.01)


def _has_text(path: Path) -> bool:
    return path.exists() and bool(path.read_text().strip())
