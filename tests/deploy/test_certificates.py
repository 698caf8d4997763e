"""deploy/make-certificates, and the pair with what it makes: mTLS to the ledger, TLS and a token to the gateway."""

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from onrecord.audit.v1 import audit_pb2, questions_pb2, questions_pb2_grpc
from onrecord.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from demo.model_server import ModelServer
from demo.processes import REPOSITORY, Service, run_command, start_service
from demo.script import Script

pytestmark = pytest.mark.long

LIST = questions_pb2.ListToolCallsRequest()


def make_certificates(folder: Path) -> None:
    subprocess.run([REPOSITORY / "deploy/make-certificates", folder, "2"], check=True, stderr=subprocess.DEVNULL)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    make_certificates(tmp_path / "secrets")
    return tmp_path / "secrets"


@pytest.fixture
def audit_env(secrets: Path, tmp_path: Path) -> dict[str, str]:
    own = secrets / "audit"
    return {
        "AUDIT_LISTEN": "127.0.0.1:0",
        "AUDIT_DB": str(tmp_path / "audit.db"),
        "AUDIT_TLS_CERT": str(own / "cert.pem"),
        "AUDIT_TLS_KEY": str(own / "key.pem"),
        "AUDIT_TLS_CLIENT_CA": str(own / "ca.pem"),
        "AUDIT_TOKENS_FILE": str(own / "callers.toml"),
    }


@pytest.fixture
def audit(audit_env: dict[str, str]) -> Iterator[Service]:
    with start_service("audit_svc", audit_env, "serve") as service:
        yield service


def gateway_env(secrets: Path, state: Path, audit: Service, model: ModelServer) -> dict[str, str]:
    own = secrets / "gateway"
    return {
        "GATEWAY_LISTEN": "127.0.0.1:0",
        "GATEWAY_STATE_DIR": str(state),
        "GATEWAY_TLS_CERT": str(own / "cert.pem"),
        "GATEWAY_TLS_KEY": str(own / "key.pem"),
        "GATEWAY_TOKENS_FILE": str(own / "callers.toml"),
        "GATEWAY_AUDIT_TARGET": audit.address,
        "GATEWAY_AUDIT_TLS_CA": str(own / "ca.pem"),
        "GATEWAY_AUDIT_TLS_CERT": str(own / "cert.pem"),
        "GATEWAY_AUDIT_TLS_KEY": str(own / "key.pem"),
        "GATEWAY_PRODUCER_NAME": "gateway",
        "GATEWAY_OLLAMA_URL": model.ollama_url,
        "GATEWAY_OLLAMA_MODEL": "scripted",
    }


def credentials(folder: Path, *, certificate: bool) -> grpc.ChannelCredentials:
    shown = ((folder / "key.pem").read_bytes(), (folder / "cert.pem").read_bytes()) if certificate else (None, None)
    return grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes(), *shown)


async def tool_calls(audit: Service, folder: Path, *, certificate: bool = True) -> list[audit_pb2.AuditRow]:
    async with grpc.aio.secure_channel(audit.address, credentials(folder, certificate=certificate)) as channel:
        answer = await questions_pb2_grpc.QuestionServiceStub(channel).ListToolCalls(LIST, timeout=30)
        return [record.tool_call for record in answer.tool_calls]


async def test_the_pair_works_with_what_the_script_made_and_lets_in_nobody_else(secrets, audit, tmp_path):
    operator = secrets / "operator"
    script = Script.model_validate(
        {"steps": [{"tool_calls": [{"name": "read", "arguments": {"path": "x"}}]}, {"text": "Done."}]}
    )
    async with ModelServer(script) as model:
        env = gateway_env(secrets, tmp_path / "gateway", audit, model)
        with start_service("gateway_svc", env, "serve") as gateway:
            token = (operator / "gateway-token").read_text().strip()
            async with grpc.aio.secure_channel(gateway.address, credentials(operator, certificate=False)) as channel:
                stub = gateway_pb2_grpc.GatewayServiceStub(channel)
                request = gateway_pb2.RunTurnRequest(input="go")
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await anext(aiter(stub.RunTurn(request, timeout=30)))
                assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
                metadata = (("authorization", f"Bearer {token}"),)
                events = [event async for event in stub.RunTurn(request, metadata=metadata, timeout=30)]
                assert events[-1].WhichOneof("event") == "turn_finished"
            async with asyncio.timeout(30):
                while not (rows := await tool_calls(audit, operator)):
                    await asyncio.sleep(0.05)
            assert [row.tool_name for row in rows] == ["read"]

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tool_calls(audit, operator, certificate=False)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE, "the handshake asks for a certificate"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tool_calls(audit, secrets / "gateway")
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED, "a gateway may write the ledger, and not read it"


def test_the_probe_of_an_image_works_under_mtls_with_the_settings_of_the_service_alone(audit, audit_env):
    probe = run_command("audit_svc", {**audit_env, "AUDIT_LISTEN": audit.address}, "health", "--timeout", "30")
    assert (probe.returncode, probe.stdout.strip()) == (0, f"{audit.address}: SERVING")


async def test_made_again_certificates_replace_the_old_ones_without_a_restart_and_tokens_stay(secrets, audit):
    old = (secrets / "audit/cert.pem").read_bytes()
    lists = [(secrets / name).read_bytes() for name in ("audit/callers.toml", "gateway/callers.toml")]
    authority = (secrets / "authority/ca.pem").read_bytes()
    await tool_calls(audit, secrets / "operator")
    make_certificates(secrets)
    assert (secrets / "audit/cert.pem").read_bytes() != old
    assert [(secrets / name).read_bytes() for name in ("audit/callers.toml", "gateway/callers.toml")] == lists
    assert (secrets / "authority/ca.pem").read_bytes() == authority
    await tool_calls(audit, secrets / "operator")


@pytest.mark.parametrize("manifest", ["compose.yaml", "kubernetes/base/gateway.yaml"])
def test_the_certificate_of_the_ledger_is_for_the_name_that_gateways_call_it_by(secrets, manifest):
    text = (REPOSITORY / "deploy" / manifest).read_text()
    target = re.search(r'GATEWAY_AUDIT_TARGET(?:: |, value: ")(?:dns:///)?([\w.]+):50052', text)
    assert target
    certificate = x509.load_pem_x509_certificate((secrets / "audit/cert.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert target[1] in names.get_values_for_type(x509.DNSName)


def test_nobody_but_its_owner_reads_a_key_and_no_service_gets_the_authoritys(secrets):
    for path in [secrets, *secrets.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    assert {path.parent.name for path in secrets.rglob("ca.key")} == {"authority"}
