"""Certificates, tokens and roles between real processes."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import (
    administration_pb2,
    administration_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    questions_pb2,
    questions_pb2_grpc,
)
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from demo.processes import Service, run_command
from demo.script import Call, Script, Step
from recording.rows import ROW_VERSION
from service_kit.access.roles import Role, make_token
from tests.support.certificates import Authority, Pair

SCRIPT = Script(steps=(Step(tool_calls=(Call(name="bash", arguments={"command": "true"}),)), Step(text="done")))


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def secure(address: str, ca: Authority, pair: Pair | None = None) -> grpc.aio.Channel:
    key, certificate = (pair.key.read_bytes(), pair.certificate.read_bytes()) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(ca.path.read_bytes(), key, certificate)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
    return grpc.aio.secure_channel(address, credentials, options)


class Guarded:
    """A pair under mTLS, with a caller for each role."""

    def __init__(self, pair: Any, folder: Path) -> None:
        self.pair = pair
        self.folder = folder
        self.ca = Authority(folder)
        self.server = self.ca.server()
        self.client = self.ca.issue("client")
        self.tokens: dict[str, str] = {}
        self.files = {name: folder / f"{name}.toml" for name in ("audit", "gateway")}
        for service, names in (("audit", ("producer", "reader", "admin")), ("gateway", ("caller",))):
            self.add(service, *names)

    def add(self, service: str, *roles: str, name: str = "") -> None:
        for role in roles:
            named = name or ("gateway-1" if role == "producer" else role)
            self.tokens[name or role], table = make_token(named, [Role(role)])
            with self.files[service].open("a") as file:
                file.write(f"{table}\n")

    def env(self, prefix: str, service: str) -> dict[str, str]:
        return {
            f"{prefix}_TLS_CERT": str(self.server.certificate),
            f"{prefix}_TLS_KEY": str(self.server.key),
            f"{prefix}_TLS_CLIENT_CA": str(self.ca.path),
            f"{prefix}_TOKENS_FILE": str(self.files[service]),
        }

    def start(self) -> None:
        self.audit = self.pair.start_audit(**self.env("AUDIT", "audit"), AUDIT_LISTEN="localhost:0")
        token = self.folder / "token"
        token.write_text(self.tokens["producer"] + "\n")
        self.gateway_env = {
            **self.env("GATEWAY", "gateway"),
            "GATEWAY_LISTEN": "localhost:0",
            "GATEWAY_AUDIT_TLS_CA": str(self.ca.path),
            "GATEWAY_AUDIT_TLS_CERT": str(self.client.certificate),
            "GATEWAY_AUDIT_TLS_KEY": str(self.client.key),
            "GATEWAY_AUDIT_TOKEN_FILE": str(token),
            "GATEWAY_PRODUCER_NAME": "gateway-1",
        }
        self.gateway = self.pair.start_gateway(**self.gateway_env)


@pytest.fixture
async def guarded(make_pair, tmp_path):
    guarded = Guarded(await make_pair(SCRIPT), tmp_path)
    guarded.start()
    return guarded


async def rows(guarded: Guarded, count: int) -> Any:
    async with secure(guarded.audit.address, guarded.ca, guarded.client) as channel, asyncio.timeout(30):
        stub = questions_pb2_grpc.QuestionServiceStub(channel)
        while True:
            listed = await stub.ListToolCalls(
                questions_pb2.ListToolCallsRequest(), metadata=bearer(guarded.tokens["reader"])
            )
            if len(listed.tool_calls) >= count:
                return [record.tool_call for record in listed.tool_calls]
            await asyncio.sleep(0.05)


@pytest.mark.long
async def test_a_turn_over_mtls_and_tokens_leaves_its_row_under_the_gateways_name(guarded):
    async with secure(guarded.gateway.address, guarded.ca, guarded.client) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)
        async for _ in stub.RunTurn(pb.RunTurnRequest(input="go"), metadata=bearer(guarded.tokens["caller"])):
            pass
    assert len(await rows(guarded, 1)) == 1
    [(producer,)] = guarded.pair.query("SELECT id FROM producers")
    assert producer.startswith("gateway-1/")


async def probe(module: str, env: dict[str, str], service: Service) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(run_command, module, env, "health", "--target", service.address)


@pytest.mark.long
async def test_the_probes_and_the_command_line_come_in_over_mtls(guarded, tmp_path):
    for module, service, env in (
        ("gateway_svc", guarded.gateway, guarded.env("GATEWAY", "gateway")),
        ("audit_svc", guarded.audit, guarded.env("AUDIT", "audit")),
    ):
        async with asyncio.timeout(30):
            while "SERVING" not in (ran := await probe(module, env, service)).stdout:
                assert "NOT_SERVING" in ran.stderr, "the gateway has not asked its model server yet"
        assert ran.returncode == 0
        ran = await asyncio.to_thread(run_command, module, {}, "health", "--target", service.address)
        assert ran.returncode == 1, "in plain text there is no answer"
    token = tmp_path / "caller-token"
    token.write_text(guarded.tokens["caller"])
    env = {
        "ONRECORD_CA": str(guarded.ca.path),
        "ONRECORD_CERT": str(guarded.client.certificate),
        "ONRECORD_KEY": str(guarded.client.key),
        "ONRECORD_TOKEN_FILE": str(token),
    }
    ran = await asyncio.to_thread(run_command, "gateway_svc", env, "engines", "--target", guarded.gateway.address)
    assert ran.returncode == 0, ran.stderr
    token.write_text("guessed")
    ran = await asyncio.to_thread(run_command, "gateway_svc", env, "engines", "--target", guarded.gateway.address)
    assert ran.returncode == 1
    assert ran.stderr.startswith("the token is not known here")


async def refusal(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code()


@pytest.mark.long
async def test_a_compromised_gateway_can_neither_read_nor_change_what_is_on_the_record(guarded):
    mine = audit_pb2.AuditRow(id="0197a1b2-0000-7000-8000-000000000001", engine="e", tool_name="bash")
    mine.session_id, mine.outcome, mine.created_at_ms = "s", common_pb2.OUTCOME_SUCCEEDED, 1_764_000_000_000
    theirs = bearer(guarded.tokens["producer"])
    async with secure(guarded.audit.address, guarded.ca, guarded.client) as channel:
        stub = audit_pb2_grpc.AuditServiceStub(channel)

        def batch(producer_id: str, row: audit_pb2.AuditRow) -> audit_pb2.RecordRequest:
            covered = audit_pb2.SequenceRange(producer_id=producer_id, first=1, last=1)
            return audit_pb2.RecordRequest(range=covered, row_version=ROW_VERSION, tool_calls=[row])

        def record(producer_id: str, row: audit_pb2.AuditRow) -> Any:
            return stub.RecordBatch(batch(producer_id, row), metadata=theirs)

        unnumbered = audit_pb2.RecordRequest(row_version=ROW_VERSION, tool_calls=[mine])
        assert not (await stub.RecordBatch(unnumbered, metadata=theirs)).rejections
        for name in ("gateway-1", "gateway-1/spool"):
            assert not (await record(name, mine)).rejections
        for name in ("gateway-2", "gateway-10", "gateway-1x/spool", "/gateway-1", "Gateway-1"):
            assert await refusal(record(name, mine)) == grpc.StatusCode.PERMISSION_DENIED
        stream = stub.Record(metadata=theirs)
        await stream.write(batch("gateway-2", mine))
        assert await stream.code() == grpc.StatusCode.PERMISSION_DENIED

        changed = audit_pb2.AuditRow()
        changed.CopyFrom(mine)
        changed.outcome = common_pb2.OUTCOME_DENIED
        (rejection,) = (await record("gateway-1", changed)).rejections
        assert rejection.code == audit_pb2.REJECTION_CODE_CONFLICT
        session = audit_pb2.SessionRow(
            id="s", revision=1, status=common_pb2.SESSION_STATUS_IDLE, created_at_ms=1_764_000_000_000
        )
        session.updated_at_ms = session.created_at_ms
        guarded.add("audit", "producer", name="gateway-2")
        other = bearer(guarded.tokens["gateway-2"])
        assert not (
            await stub.RecordBatch(audit_pb2.RecordRequest(row_version=ROW_VERSION, sessions=[session]), metadata=other)
        ).rejections
        session.revision, session.usage.known_cost_micros = 2, 99
        answer = await stub.RecordBatch(
            audit_pb2.RecordRequest(row_version=ROW_VERSION, sessions=[session]), metadata=theirs
        )
        assert (answer.stored, answer.duplicates, len(answer.rejections)) == (1, 0, 0), "a session of its own"
        answer = await stub.RecordBatch(
            audit_pb2.RecordRequest(row_version=ROW_VERSION, sessions=[session]), metadata=other
        )
        assert answer.stored == 1
        questions = questions_pb2_grpc.QuestionServiceStub(channel)
        care = administration_pb2_grpc.AdministrationServiceStub(channel)
        get = questions_pb2.GetSessionRecordRequest(session=questions_pb2.RowKey(id="s"))
        for call in (
            questions.ListToolCalls(questions_pb2.ListToolCallsRequest(), metadata=theirs),
            questions.GetSessionRecord(get, metadata=theirs),
            questions.TailToolCalls(questions_pb2.TailToolCallsRequest(), metadata=theirs).read(),
            care.Prune(administration_pb2.PruneRequest(), metadata=theirs).read(),
            care.Backup(administration_pb2.BackupRequest(), metadata=theirs).read(),
        ):
            assert await refusal(call) == grpc.StatusCode.PERMISSION_DENIED
    (row,) = await rows(guarded, 1)
    assert row.outcome == common_pb2.OUTCOME_SUCCEEDED


@pytest.mark.long
async def test_rows_wait_while_the_gateways_token_is_revoked_and_come_with_the_next_one(guarded, tmp_path):
    async with secure(guarded.gateway.address, guarded.ca, guarded.client) as channel:
        stub = gateway_pb2_grpc.GatewayServiceStub(channel)

        async def turn() -> None:
            async for _ in stub.RunTurn(pb.RunTurnRequest(input="go"), metadata=bearer(guarded.tokens["caller"])):
                pass

        await turn()
        await rows(guarded, 1)
        tables = guarded.files["audit"].read_text().split("[[callers]]")
        kept = [table for table in tables if table.strip() and "gateway-1" not in table]
        guarded.files["audit"].write_text("".join(f"[[callers]]{table}" for table in kept))
        await turn()
        while "UNAUTHENTICATED" not in guarded.gateway.stderr_text():
            await asyncio.sleep(0.05)
        assert len(await rows(guarded, 1)) == 1
        guarded.add("audit", "producer")
        (tmp_path / "token").write_text(guarded.tokens["producer"])
        assert len(await rows(guarded, 2)) == 2
