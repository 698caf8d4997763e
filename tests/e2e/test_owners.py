"""A session is its caller's: others do not learn that it is there."""

from pathlib import Path

import grpc
import pytest
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Script, Step
from service_kit.access.roles import Role, make_token
from tests.e2e.test_security import bearer, refusal
from tests.support.pages import pages_of

SCRIPT = Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": "sleep 60"}),)), Step(text="done")))


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, str]:
    made = {
        name: make_token(name, [role])
        for name, role in (("ada", Role.CALLER), ("bob", Role.CALLER), ("ops", Role.ADMIN))
    }
    (tmp_path / "callers.toml").write_text("\n".join(table for _, table in made.values()))
    return {name: token for name, (token, _) in made.items()}


@pytest.mark.long
async def test_a_session_is_seen_gone_on_with_and_cancelled_by_its_caller_alone(make_pair, tokens, tmp_path):
    pair = await make_pair(SCRIPT)
    pair.start_audit()
    before = await pair.gateway(first := pair.start_gateway())
    old = (await before.CreateSession(pb.CreateSessionRequest())).session.id
    first.terminate()
    gateway = await pair.gateway(pair.start_gateway(GATEWAY_TOKENS_FILE=str(tmp_path / "callers.toml")))
    ada, bob, ops = (bearer(tokens[name]) for name in ("ada", "bob", "ops"))

    async def listed(metadata) -> set[str]:
        asked = pages_of(gateway.ListSessions, pb.ListSessionsRequest(page_size=1), metadata=metadata)
        return {session.id async for page in asked for session in page.sessions}

    made = (await gateway.CreateSession(pb.CreateSessionRequest(), metadata=ada)).session.id
    turn = gateway.RunTurn(pb.RunTurnRequest(input="go"), metadata=ada)
    accepted = (await turn.read()).turn_accepted
    for session_id in (made, accepted.session_id):
        get = pb.GetSessionRequest(session_id=session_id)
        assert await refusal(gateway.GetSession(get, metadata=bob)) == grpc.StatusCode.NOT_FOUND
        assert (await gateway.GetSession(get, metadata=ada)).session.id == session_id
        assert (await gateway.GetSession(get, metadata=ops)).session.id == session_id
        go_on = pb.RunTurnRequest(input="go", session_id=session_id)
        assert await refusal(gateway.RunTurn(go_on, metadata=bob).read()) == grpc.StatusCode.NOT_FOUND
    assert await listed(bob) == {old}
    assert await listed(ada) == await listed(ops) == {old, made, accepted.session_id}
    for cancel in (
        pb.CancelTurnRequest(turn_id=accepted.turn_id),
        pb.CancelTurnRequest(session_id=accepted.session_id),
    ):
        assert await refusal(gateway.CancelTurn(cancel, metadata=bob)) == grpc.StatusCode.NOT_FOUND
    cancel = pb.CancelTurnRequest(turn_id=accepted.turn_id)
    assert (await gateway.CancelTurn(cancel, metadata=ops)).turn_id == accepted.turn_id
    assert (await turn.read()).HasField("turn_started")
    while await turn.read() != grpc.aio.EOF:
        pass

    for session_id, may in ((accepted.session_id, ada), (made, ops)):
        delete = pb.DeleteSessionRequest(session_id=session_id)
        assert await refusal(gateway.DeleteSession(delete, metadata=bob)) == grpc.StatusCode.NOT_FOUND
        await gateway.DeleteSession(delete, metadata=may)
        assert await refusal(gateway.DeleteSession(delete, metadata=may)) == grpc.StatusCode.NOT_FOUND
    attach = pb.AttachTurnRequest(turn_id=accepted.turn_id)
    assert await refusal(gateway.AttachTurn(attach, metadata=ada).read()) == grpc.StatusCode.NOT_FOUND
    assert await listed(ops) == {old}
    left = [path.stem for path in pair.state_dir.rglob("*.*") if path.suffix in (".session", ".conversation")]
    assert left == [old]
