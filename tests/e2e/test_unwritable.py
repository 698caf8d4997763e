"""A gateway whose disk takes nothing says so at once, and serves again when it does; nothing stays half written."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from demo.script import Call, Script, Step
from service_kit.health import DETAIL_KEY
from tests.e2e.conftest import error_of, run_turn, text_of
from tests.support.small_disk import hog, mounted_at

CALLS = Script(
    steps=(Step(tool_calls=(Call(name="glob", arguments={"pattern": "x" * 3000}),) * 60), Step(text="done")),
)
FULL = "cannot be written: No space left on device"
ONCE = {"GATEWAY_HEALTH_SECONDS": "3600"}
"""It looks once, and then only when something makes it look."""


class Health:
    """What a gateway says of itself, with the words for people."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = health_pb2_grpc.HealthStub(channel)

    async def ask(self) -> tuple[bool, str]:
        call = self._stub.Check(health_pb2.HealthCheckRequest())
        answer = await call
        detail = dict(await call.trailing_metadata() or ()).get(DETAIL_KEY, b"")
        return answer.status == health_pb2.HealthCheckResponse.SERVING, detail.decode()

    async def until(self, *, serves: bool, words: str = "") -> None:
        async with asyncio.timeout(60):
            while True:
                told, detail = await self.ask()
                if told is serves and words in detail:
                    return
                await asyncio.sleep(0.05)


async def health_of(pair, gateway) -> Health:
    return Health(await pair.channel(gateway.address))


@pytest.fixture
async def small(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Path]:
    """A small disk in a gateway's state directory. It outlives the gateways."""
    with mounted_at(tmp_path / "gateway" / request.param) as disk:
        yield disk


def nearly_full(disk: Path, room: int) -> Path:
    hogged = hog(disk)
    with hogged.open("r+b") as file:
        file.truncate(hogged.stat().st_size - room)
    return hogged


@pytest.mark.long
@pytest.mark.parametrize("small", ["spool"], indirect=True)
@pytest.mark.parametrize("mode", ["strict", "best_effort"])
async def test_a_gateway_says_at_once_that_its_spool_cannot_be_written(small, make_pair, mode):
    """A strict one does not serve then. The other serves, and says that rows are not recorded."""
    pair = await make_pair(CALLS)
    serves, words = mode == "best_effort", f"the spool {FULL}"
    hogged = nearly_full(small, 12_000)
    gateway = pair.start_gateway(GATEWAY_AUDIT_MODE=mode, **ONCE)
    health, stub = await health_of(pair, gateway), await pair.gateway(gateway)
    await health.until(serves=serves, words=words)
    hogged.unlink()
    if not serves:
        await health.until(serves=True)
    assert text_of(await run_turn(stub)) == "done"
    hogged = hog(small)
    async with asyncio.timeout(120):
        while words not in (await health.ask())[1]:
            assert text_of(await run_turn(stub)) == "done", "the model is told, and goes on without tools"
    await health.until(serves=serves, words=words)
    hogged.unlink()
    if not serves:
        await health.until(serves=True)
    assert text_of(await run_turn(stub)) == "done"


@pytest.mark.long
@pytest.mark.parametrize("small", ["sessions", "requests"], indirect=True)
async def test_a_gateway_that_cannot_write_what_a_turn_must_does_not_serve(small, make_pair):
    """Turns fail as for a passing fault, nothing stays half written, and sessions go on when there is room."""
    pair = await make_pair(Script(steps=(Step(text="done"),)))
    gateway = pair.start_gateway(GATEWAY_HEALTH_SECONDS="0.1")
    health, stub = await health_of(pair, gateway), await pair.gateway(gateway)
    await health.until(serves=True)
    (began, *_) = await run_turn(stub, request_id="first")
    session_id = began.turn_accepted.session_id
    hogged = nearly_full(small, 100)
    errors: list[tuple[int, str]] = []
    words, number = "x" * 20_000, 0
    while len(errors) < 3:
        number += 1
        try:
            ended = await run_turn(stub, session_id=session_id, input=words, request_id=f"request {number}")
        except grpc.aio.AioRpcError as error:
            errors.append((error.code().value[0], error.details() or ""))
        else:
            if ended[-1].turn_finished.HasField("error"):
                errors.append((error_of(ended).code, error_of(ended).message))
    assert {code for code, _ in errors} == {code_pb2.RESOURCE_EXHAUSTED}
    assert all(FULL in message for _, message in errors)
    await health.until(serves=False, words=f"{small.name} in the state directory {FULL}")
    hogged.unlink()
    await health.until(serves=True)
    assert text_of(await run_turn(stub, session_id=session_id, request_id="last")) == "done"
    gateway.kill()
    again = pair.start_gateway()
    stub = await pair.gateway(again)
    assert text_of(await run_turn(stub, session_id=session_id)) == "done", "its transcript is whole"
    assert text_of(await run_turn(stub, session_id=session_id, request_id="last")) == "", "and so are the requests"
