"""Another's name, claimed: under certificates `principal` and `recorded_by` come from the list of callers alone."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from onrecord.audit.v1 import audit_pb2, audit_pb2_grpc, questions_pb2, questions_pb2_grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from demo.script import Call, Script, Step
from service_kit.access.roles import Role, make_token
from tests.audit_svc.samples import audit_row, cost_row, record_request
from tests.e2e.test_security import bearer, secure
from tests.support.certificates import Authority

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(300)]

SCRIPT = Script(steps=(Step(tool_calls=(Call(name="glob", arguments={"pattern": "*"}),)), Step(text="done")))
CLAIMS = (("principal", "bob"), ("x-principal", "bob"), ("x-forwarded-user", "bob"), ("recorded_by", "bob"))
CERTIFIED = {"ada": "caller", "bob": "caller", "gateway": "producer", "auditor": "reader"}
LIKE_ADA: Sequence[tuple[str, Sequence[x509.GeneralName]]] = (
    ("ADA", ()),
    ("ada ", ()),
    ("ada.example.org", ()),
    ("nobody", (x509.DNSName("ada"),)),
    ("nobody", (x509.RFC822Name("ada@example.org"),)),
    ("nobody", (x509.UniformResourceIdentifier("spiffe://ada"),)),
)


async def test_neither_a_certificate_nor_a_token_nor_a_claim_makes_anybody_another(make_pair, tmp_path: Path):
    """A token names its caller, else the certificate does; what is said beside them names nobody."""
    ca = Authority(tmp_path)
    shown = {name: ca.issue(name) for name in CERTIFIED}
    tokens = {name: make_token(name, [Role(role)]) for name, role in (("carol", "caller"), ("mallory", "producer"))}
    entries = [
        f'[[callers]]\nname = "{name}"\nroles = ["{role}"]\ncertificate = "{name}"\n'
        for name, role in CERTIFIED.items()
    ]
    callers = tmp_path / "callers.toml"
    callers.write_text("\n".join([*entries, *(table for _, table in tokens.values())]))
    server = ca.server()
    files = {
        "LISTEN": "localhost:0",
        "TLS_CERT": str(server.certificate),
        "TLS_KEY": str(server.key),
        "TLS_CLIENT_CA": str(ca.path),
        "TOKENS_FILE": str(callers),
    }
    pair = await make_pair(SCRIPT)
    ledger = pair.start_audit(**{f"AUDIT_{name}": value for name, value in files.items()})
    gateway = pair.start_gateway(
        **{f"GATEWAY_{name}": value for name, value in files.items()},
        GATEWAY_AUDIT_TLS_CA=str(ca.path),
        GATEWAY_AUDIT_TLS_CERT=str(shown["gateway"].certificate),
        GATEWAY_AUDIT_TLS_KEY=str(shown["gateway"].key),
        GATEWAY_PRODUCER_NAME="gateway",
    )
    by_token = {name: bearer(token) for name, (token, _) in tokens.items()}
    request = pb.RunTurnRequest(
        input="go",
        on_behalf_of="bob",
        agent=common_pb2.Software(name="bob"),
        new_session=pb.SessionSettings(labels={"principal": "bob", "recorded_by": "bob"}),
    )

    async def run(pair: Any, metadata: Sequence[tuple[str, str]]) -> grpc.StatusCode:
        async with secure(gateway.address, ca, pair) as channel:
            turn = gateway_pb2_grpc.GatewayServiceStub(channel).RunTurn(request, metadata=metadata)
            try:
                async for _ in turn:
                    pass
            except grpc.aio.AioRpcError as error:
                return error.code()
            return await turn.code()

    assert await run(shown["ada"], CLAIMS) == grpc.StatusCode.OK
    assert await run(shown["ada"], (*CLAIMS, *by_token["carol"])) == grpc.StatusCode.OK, "the token names the caller"
    for number, (name, alternative) in enumerate(LIKE_ADA):
        like = ca.issue(name, *alternative, file=f"like-{number}")
        assert await run(like, CLAIMS) == grpc.StatusCode.UNAUTHENTICATED, (name, alternative)
    # A certificate of the list opens no door to a token that is not on it, nor to two.
    assert await run(shown["ada"], bearer("bob")) == grpc.StatusCode.UNAUTHENTICATED
    assert await run(shown["ada"], (*by_token["carol"], *by_token["mallory"])) == grpc.StatusCode.UNAUTHENTICATED

    # A producer on the gateway's own certificate says who recorded its row, in fields that the row does not have.
    rows: dict[str, Any] = {"principal": "ada", "on_behalf_of": "gateway"}
    forged = record_request(tool_calls=[audit_row(id="forged", **rows)], model_requests=[cost_row(id="forged", **rows)])
    told = audit_pb2.RecordRequest.FromString(forged.SerializeToString())
    for row in (*told.tool_calls, *told.model_requests):
        row.MergeFromString(b"\xca\x3e\x07gateway")  # field 1001, a text
    async with secure(ledger.address, ca, shown["gateway"]) as channel:
        stub = audit_pb2_grpc.AuditServiceStub(channel)
        metadata = (*by_token["mallory"], ("recorded_by", "gateway"))
        assert (await stub.RecordBatch(told, metadata=metadata)).stored == 2
    async with secure(ledger.address, ca, shown["auditor"]) as channel, asyncio.timeout(30):
        questions = questions_pb2_grpc.QuestionServiceStub(channel)
        while len(records := (await questions.ListToolCalls(questions_pb2.ListToolCallsRequest())).tool_calls) < 3:
            await asyncio.sleep(0.05)
    assert sorted((one.tool_call.principal, one.receipt.recorded_by) for one in records) == [
        ("ada", "gateway"),
        ("ada", "mallory"),
        ("carol", "gateway"),
    ]
    assert {one.tool_call.on_behalf_of for one in records} == {"bob", "gateway"}
    await pair.costs(5)
    assert set(pair.query("SELECT DISTINCT principal, recorded_by FROM cost_log")) == {
        ("ada", "gateway"),
        ("ada", "mallory"),
        ("carol", "gateway"),
    }
