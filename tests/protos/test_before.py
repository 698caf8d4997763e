"""The code of before the redraw of the wire against the services of now: what works, and what is refused clearly.

`before/` has the protos as they were. Nothing was released with them: they stand for a client that nobody has updated.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from onrecord.audit.v1 import questions_pb2, questions_pb2_grpc

from demo.processes import Service
from recording.channel.options import CLIENT_OPTIONS
from tests.protos.pair import started_pair

BEFORE = Path(__file__).parent / "before"
AUDIT, GATEWAY = "onrecord.audit.v1.AuditService", "onrecord.gateway.v1.GatewayService"
ROW = {"id": "before", "tool_name": "bash", "outcome": 1, "created_at_ms": 1_790_000_000_000}
MOVED = grpc.StatusCode.UNIMPLEMENTED
REFUSED = grpc.StatusCode.INVALID_ARGUMENT
OK = grpc.StatusCode.OK

TABLE: list[tuple[str, str, dict[str, Any], grpc.StatusCode]] = [
    # Recording: the path is the same, and the batch says no row_version: refused whole.
    (AUDIT, "RecordBatch", {"rows": [ROW]}, REFUSED),
    (AUDIT, "RecordBatch", {"sequence": 1, "rows": [ROW]}, REFUSED),
    (AUDIT, "RecordBatch", {"sequence": 7, "first_sequence": 1, "rows": [ROW], "costs": [{"id": "c"}]}, REFUSED),
    (AUDIT, "RecordBatch", {"producer_id": "gateway-1", "sequence": 1, "rows": [ROW]}, REFUSED),
    (AUDIT, "RecordBatch", {"producer_id": "01a22298-0000-7000-8000-000000000000", "rows": [ROW]}, REFUSED),
    (AUDIT, "Record", {"producer_id": "gateway-1", "sequence": 1, "first_sequence": 1, "rows": [ROW]}, REFUSED),
    (AUDIT, "Record", {"sequence": 1, "sessions": [{"id": "s", "revision": 1}]}, REFUSED),
    # Questions and administration have services of their own.
    (AUDIT, "ListToolCalls", {"session_id": "s"}, MOVED),
    (AUDIT, "ListSessions", {}, MOVED),
    (AUDIT, "GetSession", {}, MOVED),
    (AUDIT, "SummarizeUsage", {}, MOVED),
    (AUDIT, "TailToolCalls", {}, MOVED),
    (AUDIT, "ExportToolCalls", {}, MOVED),
    (AUDIT, "ListQueries", {}, MOVED),
    (AUDIT, "Prune", {"created_before_ms": 1_700_000_000_000}, MOVED),
    (AUDIT, "Backup", {}, MOVED),
    # The gateway: what names nothing or only the first field is understood; approvals have a service of their own.
    (GATEWAY, "ListEngines", {}, OK),
    (GATEWAY, "ListSessions", {"page_size": 10}, OK),
    (GATEWAY, "GetSession", {"session_id": "nobody"}, grpc.StatusCode.NOT_FOUND),
    (GATEWAY, "CancelTurn", {"turn_id": "nobody"}, grpc.StatusCode.NOT_FOUND),
    (GATEWAY, "CreateSession", {}, OK),
    (GATEWAY, "AnswerToolCall", {"id": "nobody", "allow": True}, MOVED),
    (GATEWAY, "CreateSession", {"engine": "ollama"}, REFUSED),
    (GATEWAY, "CreateSession", {"max_cost_micros": 1}, REFUSED),
    # A turn's fields that are there still have their numbers; those that are not are refused, never read as others.
    (GATEWAY, "RunTurn", {"input": ""}, REFUSED),
    (GATEWAY, "RunTurn", {"input": "hi", "session_id": "nobody"}, grpc.StatusCode.NOT_FOUND),
    (GATEWAY, "RunTurn", {"input": "hi", "engine": "nobody"}, grpc.StatusCode.FAILED_PRECONDITION),
    (GATEWAY, "RunTurn", {"input": "hi", "system_prompt": "be brief"}, REFUSED),
    (GATEWAY, "RunTurn", {"input": "hi", "labels": {"user": "ada"}}, REFUSED),
    (GATEWAY, "RunTurn", {"input": "hi", "session_max_cost_micros": 1}, REFUSED),
    (GATEWAY, "RunTurn", {"input": "hi", "fallback": {"engine": "ollama"}}, REFUSED),
    (GATEWAY, "RunTurn", {"input": "hi", "max_cost_micros": -1}, REFUSED),
]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> descriptor_pool.DescriptorPool:
    """The types of before, beside those of now, which have the same names."""
    described = tmp_path_factory.mktemp("before") / "protos.binpb"
    command = ["-m", "grpc_tools.protoc", f"-I{BEFORE}", f"--descriptor_set_out={described}", "--include_imports"]
    protos = sorted(str(path.relative_to(BEFORE)) for path in BEFORE.rglob("*.proto"))
    subprocess.run([sys.executable, *command, *protos], check=True, timeout=60)
    found = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(described.read_bytes()).file:
        found.Add(file)
    return found


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Service]]:
    """The pair, each by the name of its service of before."""
    with started_pair(tmp_path_factory.mktemp("pair")) as (ledger, gateway):
        yield {AUDIT: ledger, GATEWAY: gateway}


def call(pool: descriptor_pool.DescriptorPool, address: str, service: str, name: str, fields: dict[str, Any]) -> Any:
    """Calls an RPC with the types of before; returns the status that it ends with."""
    method = pool.FindServiceByName(service).methods_by_name[name]
    request: Any = message_factory.GetMessageClass(method.input_type)(**fields)
    response = message_factory.GetMessageClass(method.output_type)
    with grpc.insecure_channel(address, CLIENT_OPTIONS) as channel:
        stub = channel.stream_stream(
            f"/{service}/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        running: Any = stub(iter([request]), timeout=60, wait_for_ready=True)
        try:
            for _ in running:
                pass
        except grpc.RpcError:
            assert running.details(), "it says what is wrong"
        return running.code()


@pytest.mark.long
def test_a_client_of_before_is_understood_or_refused(pool, services):
    """Each RPC of before ends with the status that the table says, and nothing that it recorded is half stored."""
    ended = [call(pool, services[service].address, service, name, fields) for service, name, fields, _ in TABLE]
    told = [(service, name, fields, code) for (service, name, fields, _), code in zip(TABLE, ended, strict=True)]
    assert told == TABLE
    with grpc.insecure_channel(services[AUDIT].address) as channel:
        stub = questions_pb2_grpc.QuestionServiceStub(channel)
        rows = stub.ListToolCalls(questions_pb2.ListToolCallsRequest()).tool_calls
        assert [record.tool_call.id for record in rows] == []
        assert not next(iter(stub.ExportToolCalls(questions_pb2.ExportToolCallsRequest()))).tool_calls
        usage = stub.SummarizeUsage(questions_pb2.SummarizeUsageRequest()).groups
        assert sum(group.usage.requests for group in usage) == 0
        sessions = stub.ListSessionRecords(questions_pb2.ListSessionRecordsRequest()).sessions
        assert "s" not in {record.session.id for record in sessions}


@pytest.mark.long
def test_the_table_has_every_rpc_of_before(pool):
    told = {(service, name) for service, name, _, _ in TABLE}
    assert told == {
        (name, method) for name in (AUDIT, GATEWAY) for method in pool.FindServiceByName(name).methods_by_name
    }
