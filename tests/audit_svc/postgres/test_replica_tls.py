"""Replicas that serve by TLS pass on what is to be written by TLS too, and believe no certificate of another's CA."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onrecord.audit.v1 import questions_pb2

from demo.processes import start_service
from recording.channel.options import DIRECT
from service_kit.access.roles import Role, make_token
from tests.audit_svc.samples import audit_row, request
from tests.audit_svc.stubs import LedgerStub
from tests.faults.world import wait_for
from tests.support.certificates import Authority
from tests.support.ports import own_port

pytestmark = [pytest.mark.postgres, pytest.mark.long]

ANSWER_SECONDS = 10.0


@dataclass
class Tls:
    """Two replicas on one database."""

    channels: list[grpc.Channel]

    def _writes(self, channel: grpc.Channel) -> bool:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service="writer"), timeout=ANSWER_SECONDS)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def stubs(self) -> tuple[LedgerStub, LedgerStub]:
        """Of the one that writes, and of the other."""
        writes = list[bool]()

        def one_does() -> bool:
            writes[:] = [self._writes(channel) for channel in self.channels]
            return sum(writes) == 1

        wait_for(one_does, "no replica writes")
        writer = writes.index(True)
        return LedgerStub(self.channels[writer]), LedgerStub(self.channels[1 - writer])


@pytest.fixture
def start(postgres_database: str, tmp_path: Path) -> Iterator[Callable[..., Tls]]:
    with ExitStack() as stack:

        def start(believed: Authority, authority: Authority, **settings: str) -> Tls:
            server, client = authority.server(), authority.issue("producer")
            credentials = grpc.ssl_channel_credentials(
                authority.path.read_bytes(), client.key.read_bytes(), client.certificate.read_bytes()
            )
            channels = []
            for _ in range(2):
                port = stack.enter_context(own_port())
                env = {
                    "AUDIT_DB": postgres_database,
                    "AUDIT_LISTEN": f"127.0.0.1:{port}",
                    "AUDIT_REPLICA_ADDRESS": f"localhost:{port}",
                    "AUDIT_REPLICA_CA": str(believed.path),
                    "AUDIT_TLS_CERT": str(server.certificate),
                    "AUDIT_TLS_KEY": str(server.key),
                    "AUDIT_SEAL_SECONDS": "0",
                    **settings,
                }
                stack.enter_context(start_service("audit_svc", env, "serve"))
                channel = grpc.secure_channel(f"localhost:{port}", credentials, DIRECT)
                channels.append(stack.enter_context(channel))
            return Tls(channels)

        yield start


def rows_of(stub: LedgerStub, metadata: Any = None) -> int:
    listed = stub.ListToolCalls(questions_pb2.ListToolCallsRequest(), timeout=ANSWER_SECONDS, metadata=metadata)
    return len(listed.tool_calls)


def test_a_standby_passes_rows_on_by_tls(start: Callable[..., Tls], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    writer, standby = start(authority, authority).stubs()
    assert standby.RecordBatch(request(audit_row()), timeout=ANSWER_SECONDS).stored == 1
    assert rows_of(writer) == 1


def test_a_standby_shows_its_own_certificate_where_the_writer_asks_for_one(
    start: Callable[..., Tls], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    token, table = make_token("gateway-a", [Role.PRODUCER, Role.READER])
    callers = tmp_path / "callers.toml"
    callers.write_text(f"{table}\n")
    settings = {"AUDIT_TLS_CLIENT_CA": str(authority.path), "AUDIT_TOKENS_FILE": str(callers)}
    metadata = (("authorization", f"Bearer {token}"),)
    writer, standby = start(authority, authority, **settings).stubs()
    assert standby.RecordBatch(request(audit_row()), timeout=ANSWER_SECONDS, metadata=metadata).stored == 1
    assert rows_of(writer, metadata) == 1


def test_a_writer_whose_certificate_is_another_cas_gets_no_row(start: Callable[..., Tls], tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    writer, standby = start(other, authority).stubs()
    with pytest.raises(grpc.RpcError) as refused:
        standby.RecordBatch(request(audit_row()), timeout=ANSWER_SECONDS)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "the replica that writes cannot be reached now" in (refused.value.details() or "")
    assert rows_of(writer) == 0
    assert writer.RecordBatch(request(audit_row()), timeout=ANSWER_SECONDS).stored == 1
