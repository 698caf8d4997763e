"""A gateway whose sessions are encrypted, as its clients and its operator have it."""

import asyncio
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.processes import ServiceEnded
from demo.script import Script, Step
from gateway_svc.__main__ import program
from tests.e2e.conftest import Pair, kinds, run_turn
from tests.support.command_line import invoke

KEY, OTHER = "a1" * 32, "b2" * 32
ASKED = "what is the sentinel-of-the-user?"


def keys_in(folder: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    path = folder / "keys"
    path.write_text(text)
    path.chmod(mode)
    return {"GATEWAY_SESSIONS_KEY_FILE": str(path)}


def on_disk(pair: Pair) -> bytes:
    return b"".join(path.read_bytes() for path in (pair.state_dir / "sessions").rglob("*") if path.is_file())


@pytest.mark.long
async def test_sessions_go_on_are_read_listed_and_deleted_as_without_a_key(make_pair, tmp_path):
    pair = await make_pair(Script(steps=(Step(text="sentinel-of-the-model"),)))
    service = pair.start_gateway()
    events = await run_turn(await pair.gateway(service), input=ASKED)
    session_id = events[0].turn_accepted.session_id
    assert b"sentinel" in on_disk(pair)
    service.kill()

    service = pair.start_gateway(**keys_in(tmp_path, f"may {KEY}\n", 0o644))
    assert "files.readable_by_all" in service.stderr_text()
    assert KEY not in service.stderr_text()
    gateway = await pair.gateway(service)
    await run_turn(gateway, input="and now?", session_id=session_id)
    assert b"sentinel" not in on_disk(pair)
    service.kill()

    gateway = await pair.gateway(pair.start_gateway(**keys_in(tmp_path, f"june {OTHER}\nmay {KEY}\n")))
    await run_turn(gateway, input="and then?", session_id=session_id)
    page = await gateway.GetTranscript(pb.GetTranscriptRequest(session_id=session_id))
    assert [entry.user_text for entry in page.entries if entry.user_text] == [ASKED, "and now?", "and then?"]
    listed = await gateway.ListSessions(pb.ListSessionsRequest())
    assert [session.id for session in listed.sessions] == [session_id]
    await gateway.DeleteSession(pb.DeleteSessionRequest(session_id=session_id))
    assert not list((pair.state_dir / "sessions").glob("owner-*/*/*"))


@pytest.mark.long
async def test_sessions_are_put_in_clear_when_the_gateway_has_ended_and_not_before(make_pair, tmp_path):
    pair = await make_pair(Script(steps=(Step(text="sentinel-of-the-model"),)))
    env = keys_in(tmp_path, f"may {KEY}\n")
    service = pair.start_gateway(GATEWAY_WORKERS="2", **env)
    gateway = await pair.gateway(service)
    await run_turn(gateway)
    command = {**env, "GATEWAY_STATE_DIR": str(pair.state_dir)}
    refused = await asyncio.to_thread(invoke, program, ["sessions", "decrypt"], env=command)
    assert (refused.exit_code, "gateways that run encrypt by the key may" in refused.stderr) == (2, True)
    await run_turn(gateway)
    assert b"sentinel" not in on_disk(pair)
    service.kill()
    await until_ended(command)
    pair.start_gateway().kill()


async def until_ended(command: dict[str, str]) -> None:
    """Puts all in clear once the workers of a gateway that was killed have noticed it."""
    async with asyncio.timeout(60):
        while (await asyncio.to_thread(invoke, program, ["sessions", "decrypt"], env=command)).exit_code:
            await asyncio.sleep(0.2)


@pytest.mark.long
async def test_a_turn_on_a_session_whose_key_is_missing_is_told_so_and_others_run(make_pair, tmp_path):
    pair = await make_pair(Script(steps=(Step(text="Done."),)))
    service = pair.start_gateway(**keys_in(tmp_path, f"may {KEY}\n"))
    session_id = (await run_turn(await pair.gateway(service)))[0].turn_accepted.session_id
    service.kill()
    service = pair.start_gateway(**keys_in(tmp_path, f"june {OTHER}\n"))
    assert "sessions.key_missing" in service.stderr_text()
    assert "`gateway-svc sessions check` tells which" in service.stderr_text(), "which writes nothing"
    gateway = await pair.gateway(service)
    for call in (
        run_turn(gateway, session_id=session_id),
        gateway.GetSession(pb.GetSessionRequest(session_id=session_id)),
        gateway.GetTranscript(pb.GetTranscriptRequest(session_id=session_id)),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="is encrypted by the key may") as refused:
            await call
        status, info = rpc_status.from_call(refused.value), error_details_pb2.ErrorInfo()  # type: ignore[arg-type] # of aio
        assert status.details[0].Unpack(info)
        assert (refused.value.code(), info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_MISSING")
        assert info.metadata == {"resource": "session", "id": session_id}
    assert kinds(await run_turn(gateway))[-1] == "turn_finished"


@pytest.mark.long
async def test_a_folder_that_cannot_be_used_once_all_is_assembled_is_told_in_one_line_too(make_pair, tmp_path):
    pair = await make_pair(Script(steps=(Step(text="Done."),)))
    used = pair.state_dir / "sessions" / "keys-used"
    used.parent.mkdir(parents=True)
    used.write_text("in the way")
    with pytest.raises(ServiceEnded) as ended:
        pair.start_gateway(**keys_in(tmp_path, f"may {KEY}\n"))
    assert str(ended.value).startswith("exit code 2")
    assert "Traceback" not in str(ended.value)
    assert str(used) in str(ended.value).splitlines()[-1]


@pytest.mark.long
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (f"may {KEY[:-2]}\n", "256 bits"),
        (KEY, "line 1 must be an id and a key"),
        (None, "cannot be read"),
        (f"may {OTHER}\n", "its key may is another"),
        ("", "is not set"),
    ],
)
async def test_wrong_keys_are_refused_at_start_in_one_line(make_pair, tmp_path, content, told):
    pair = await make_pair(Script(steps=(Step(text="Done."),)))
    pair.start_gateway(**keys_in(tmp_path, f"may {KEY}\n")).kill()
    if content is None:
        env = {"GATEWAY_SESSIONS_KEY_FILE": str(tmp_path / "none")}
    else:
        env = keys_in(tmp_path, content) if content else {}
    with pytest.raises(ServiceEnded) as ended:
        pair.start_gateway(**env)
    last = str(ended.value).splitlines()[-1]
    assert str(ended.value).startswith("exit code 2")
    assert last.startswith("GATEWAY_SESSIONS_KEY_FILE: "), last
    assert told in last
    assert KEY[:20] not in str(ended.value)
