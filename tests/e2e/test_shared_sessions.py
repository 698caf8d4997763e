"""Gateways that share sessions in PostgreSQL, each with a state directory of its own."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.processes import Service, ServiceEnded
from demo.script import Call, Script, Step
from tests.e2e.conftest import SECONDS_TO_ARRIVE, Pair, error_of, run_turn, text_of
from tests.support.postgres import *  # noqa: F403 - fixtures

pytestmark = pytest.mark.postgres

WAIT = "echo ran >> ran.log; until [ -e go ]; do sleep 0.02; done"
WORK = Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": WAIT}),)), Step(text="Done.")))


def start(pair: Pair, url: str, name: str, **env: str) -> Service:
    return pair.start_gateway(GATEWAY_SESSIONS=url, GATEWAY_STATE_DIR=str(pair.folder / name), **env)


async def begin(pair: Pair, gateway, **request) -> tuple[Any, str]:
    """A turn whose tool runs, and the id of its session."""
    call = gateway.RunTurn(pb.RunTurnRequest(**{"input": "go", **request}))
    session_id = ""
    async for event in call:
        session_id = session_id or event.turn_accepted.session_id
        if event.HasField("tool_call_started"):
            break
    async with asyncio.timeout(SECONDS_TO_ARRIVE):
        while not (pair.workspace / "ran.log").exists():
            await asyncio.sleep(0.02)
    return call, session_id


async def said(gateway, session_id: str) -> list[str]:
    page = await gateway.GetTranscript(pb.GetTranscriptRequest(session_id=session_id, page_size=100))
    texts = []
    for entry in page.entries:
        texts.append(entry.user_text or entry.tool_text.text or entry.model_answer.text)
    return texts


async def test_any_gateway_continues_a_session(make_pair, postgres_database):
    pair = await make_pair(WORK)
    (pair.workspace / "go").touch()
    one, two = [await pair.gateway(start(pair, postgres_database, name)) for name in ("one", "two")]
    events = await run_turn(one)
    session_id = events[0].turn_accepted.session_id
    assert text_of(await run_turn(two, session_id=session_id)) == "Done."
    assert text_of(await run_turn(one, session_id=session_id)) == "Done."
    for gateway in (one, two):
        session = (await gateway.GetSession(pb.GetSessionRequest(session_id=session_id))).session
        assert (session.turns, session.tool_calls) == (3, 3)
        assert (await said(gateway, session_id)).count("Done.") == 3
    assert not (pair.folder / "one" / "sessions").exists(), "content lies in the database alone"


async def test_a_session_whose_gateway_was_killed_in_a_turn_goes_on_at_another_at_once(make_pair, postgres_database):
    pair = await make_pair(WORK)
    first = start(pair, postgres_database, "one")
    two = await pair.gateway(start(pair, postgres_database, "two"))
    _, session_id = await begin(pair, await pair.gateway(first))
    session = (await two.GetSession(pb.GetSessionRequest(session_id=session_id))).session
    assert session.status == common_pb2.SESSION_STATUS_RUNNING
    first.kill()
    (pair.workspace / "go").touch()
    async with asyncio.timeout(SECONDS_TO_ARRIVE):
        while (await two.GetSession(pb.GetSessionRequest(session_id=session_id))).session.status != (
            common_pb2.SESSION_STATUS_FAILED
        ):
            await asyncio.sleep(0.02)
    assert text_of(await run_turn(two, session_id=session_id)) == "Done."
    texts = await said(two, session_id)
    assert texts.count("(The turn was interrupted.)") == 2, "the call's result, and the turn's answer"
    assert (pair.workspace / "ran.log").read_text() == "ran\nran\n"


async def test_a_gateway_that_was_paused_cannot_write_over_its_successor(make_pair, postgres_database, postgres_server):
    pair = await make_pair(WORK)
    first = start(pair, postgres_database, "one")
    two = await pair.gateway(start(pair, postgres_database, "two"))
    call, session_id = await begin(pair, await pair.gateway(first))
    os.kill(first.pid, signal.SIGSTOP)
    try:
        # As when its network is cut: the server ends the connection that it holds its number by.
        name = Path(postgres_database).name
        postgres_server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1", name
        )
        (pair.workspace / "go").touch()
        assert text_of(await run_turn(two, session_id=session_id)) == "Done."
        before = await said(two, session_id)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    events = [event async for event in call]
    assert error_of(events).code == grpc.StatusCode.ABORTED.value[0]
    assert "taken" in error_of(events).message
    assert await said(two, session_id) == before
    one = await pair.gateway(first)
    assert text_of(await run_turn(one, session_id=session_id)) == "Done.", "it goes on as one of them"


async def test_a_ledgers_database_is_refused(make_pair, postgres_database, postgres_server):
    pair = await make_pair(WORK)
    postgres_server.execute("CREATE TABLE tool_call_log (position bigint)", Path(postgres_database).name)
    with pytest.raises(ServiceEnded, match="GATEWAY_SESSIONS"):
        start(pair, postgres_database, "one")
