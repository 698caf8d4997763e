"""Replicas behind Envoy: whichever is killed, turns end, sessions continue on another one, and rows are there once."""

import asyncio
import json
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from onrecord.client import Access, AsyncGateway, TurnFailed
from onrecord.common.v1 import common_pb2

from demo.model_server import ModelServer
from demo.processes import REPOSITORY
from demo.script import Call, Script, Step
from gateway_svc.turns.session_turns import NOTES
from tests.scaled.clients import Caller, Told
from tests.scaled.world import Homes, Replicas
from tests.support.postgres import postgres_server

__all__ = ["postgres_server"]

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(900)]

INTERRUPTED = NOTES[common_pb2.SESSION_STATUS_RUNNING]
CHANNELS = 10
STEPS = 3
READ = Step(tool_calls=(Call(name="read", arguments={"path": "notes.txt"}),), repeat=STEPS, delay_ms=150)
SCRIPT = Script(steps=(READ, Step(text="Done.")), check=False)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    made = tmp_path / "secrets"
    subprocess.run([REPOSITORY / "deploy/make-certificates", made, "2"], check=True, stderr=subprocess.DEVNULL)
    return made


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer(SCRIPT, keep_requests=100_000) as server:
        yield server


def seen_by(model: ModelServer) -> set[str]:
    """The ids of the calls whose results the model was sent: not of those that a killed gateway never began, of which
    it is told that the turn was interrupted.
    """
    messages = (m for request in model.requests if request.body for m in json.loads(request.body)["messages"])
    results = (message for message in messages if message["role"] == "tool")
    return {result["tool_call_id"] for result in results if result["content"] != INTERRUPTED}


@pytest.fixture
def homes(request, tmp_path) -> Iterator[Homes]:
    """Of the ledger and of sessions: a file and a folder, or two databases."""
    if request.param == "files":
        yield Homes({"AUDIT_DB": str(tmp_path / "audit.db")}, {"GATEWAY_STATE_DIR": str(tmp_path / "state")}, 1)
        return
    server = request.getfixturevalue("postgres_server")
    names = [f"{name}_{uuid.uuid4().hex}" for name in ("ledger", "conversations")]
    ledger, conversations = map(server.create_database, names)
    yield Homes(
        {"AUDIT_DB": ledger, "AUDIT_SEAL_KEY_FILE": str(tmp_path / "seal-key")},
        {"GATEWAY_SESSIONS": conversations, "GATEWAY_STATE_DIR": str(tmp_path / "state-{number}")},
        2,
    )
    for name in names:
        server.drop_database(name)


@pytest.mark.parametrize(
    ("homes", "sessions"),
    [("files", 10), ("postgres", 20), pytest.param("postgres", 100, marks=pytest.mark.long)],
    indirect=["homes"],
)
async def test_every_turn_ends_and_every_session_continues_whichever_replica_is_killed(
    tmp_path, secrets, model, homes, sessions
):
    told = Told()
    async with Replicas(tmp_path, secrets, model, homes) as replicas, AsyncExitStack() as stack:
        (tmp_path / "workspace/notes.txt").write_text("tides\n")
        channels = [await stack.enter_async_context(replicas.gateway()) for _ in range(CHANNELS)]
        callers = [Caller(channels[n % CHANNELS], replicas.token, told) for n in range(sessions)]
        await asyncio.gather(*(caller.complete_turns(1) for caller in callers))
        for replica in replicas.replicas:
            begun = len(told.calls)
            turns = asyncio.gather(*(caller.complete_turns(1) for caller in callers))
            while len(told.calls) < begun + sessions // 2:
                await asyncio.sleep(0.01)
            await replicas.kill(*replica)
            # With it away, so that each session has been continued by another replica of its kind.
            if homes.ledgers > 1 or replica[0] == "gateway":
                await turns
                await asyncio.gather(*(caller.complete_turns(1) for caller in callers))
            await replicas.start(*replica)
            await turns
        rows = await replicas.rows_with(seen_by(model))
    assert told.turns >= 5 * sessions
    assert {len(same) for same in rows.values()} == {1}, "a row is there twice"
    assert told.calls <= {row.id for same in rows.values() for row in same}


@pytest.mark.parametrize("homes", ["files"], indirect=True)
async def test_a_client_is_told_of_a_killed_gateway_as_if_nothing_stood_between(tmp_path, secrets, model, homes):
    """Envoy cuts its stream by RST_STREAM; the client goes on, and hears from the next gateway how the turn ended."""
    model.script = Script(steps=(Step(tool_calls=READ.tool_calls), Step(text="Done.", delay_ms=60_000)))
    access = Access(ca=secrets / "operator/ca.pem", token_file=secrets / "operator/gateway-token")
    async with (
        Replicas(tmp_path, secrets, model, homes) as replicas,
        AsyncGateway(replicas.gateway_address, access) as client,
    ):
        turn = client.run("go", keep_on_disconnect=True)
        with pytest.raises(TurnFailed, match="the gateway ended in the middle of this turn"):  # noqa: PT012
            async for event in turn:
                if event.HasField("tool_call_finished"):
                    for number in (0, 1):
                        await replicas.kill("gateway", number)
                    await replicas.start("gateway", 0)
