"""Every RPC that answers in pages bounds them in bytes: clients of gRPC accept messages of 4 MiB."""

import time
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import administration_pb2_grpc, audit_pb2, audit_pb2_grpc, questions_pb2_grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb
from onrecord.gateway.v1 import gateway_pb2_grpc

from demo.script import Script, Step
from recording.row_version import ROW_VERSION
from service_kit.paging import MAX_PAGE_SIZE
from tests.protos.services import SERVICES
from tests.support.pages import pages_of, parts_of

pytestmark = pytest.mark.long

WIDE = "\U0001f600"
"""Bounds on names and labels are in characters; this one has four bytes."""
SESSIONS, CALLS_OF_ONE, CONTROLS, LARGE_SESSIONS = 500, 700, 1000, 120
LABELS = [f"k{number}" for number in range(8)]
PAGED = {
    method.full_name: method
    for service in SERVICES
    for method in service.methods
    if "next_page_token" in method.output_type.fields_by_name
}
ASKED: dict[str, tuple[dict[str, Any], int]] = {
    "onrecord.audit.v1.QuestionService.ListToolCalls": ({}, SESSIONS + CALLS_OF_ONE),
    "onrecord.audit.v1.QuestionService.ListModelRequests": ({}, SESSIONS + CALLS_OF_ONE),
    "onrecord.audit.v1.QuestionService.ListSessionRecords": ({}, SESSIONS),
    "onrecord.audit.v1.QuestionService.ListControls": ({}, CONTROLS),
    "onrecord.audit.v1.QuestionService.GetSessionRecord": ({"session": {"id": "s0"}}, 2 * CALLS_OF_ONE + 2),
    "onrecord.audit.v1.QuestionService.SummarizeUsage": ({"group_by": [f"label:{k}" for k in LABELS]}, SESSIONS),
    "onrecord.gateway.v1.GatewayService.ListSessions": ({}, LARGE_SESSIONS),
}
"""What is asked of each, and how many parts all its pages have."""
ALWAYS_SMALL = {
    "onrecord.audit.v1.AdministrationService.ListQueries",
    "onrecord.audit.v1.QuestionService.ListProducers",
}
"""A thousand of their rows have less than 3 MiB: 2048 bytes each at most, and names."""
ELSEWHERE = {
    "onrecord.gateway.v1.ApprovalService.ListPendingToolCalls",
    "onrecord.gateway.v1.GatewayService.GetTranscript",
}
"""A thousand turns would have to wait: tests/gateway_svc/test_servicer.py asks the service itself. Of transcripts,
tests/conversations/test_transcripts.py asks for answers that are larger than a page.
"""
STUBS: dict[str, Any] = {
    "QuestionService": questions_pb2_grpc.QuestionServiceStub,
    "AdministrationService": administration_pb2_grpc.AdministrationServiceStub,
    "GatewayService": gateway_pb2_grpc.GatewayServiceStub,
}


def batches() -> list[audit_pb2.RecordRequest]:
    """The largest rows that a ledger takes."""
    now_ms = time.time_ns() // 1_000_000
    common = {"tool_name": "read", "outcome": common_pb2.OUTCOME_FAILED, "created_at_ms": now_ms, "error": "e" * 2048}
    summary = f'{{"a":"{"x" * 4080}"}}'
    found = [audit_pb2.RecordRequest(row_version=ROW_VERSION)]
    for number in range(SESSIONS + CALLS_OF_ONE):
        session = number if number < SESSIONS else 0
        found[-1].tool_calls.add(id=f"c{number}", session_id=f"s{session}", args_summary=summary, **common)
        found[-1].model_requests.add(
            id=f"m{number}",
            session_id=f"s{session}",
            engine="openai",
            model=WIDE * 256,
            requested_model=WIDE * 256,
            error="e" * 2048,
            created_at_ms=now_ms,
        )
        if number < SESSIONS:
            found[-1].sessions.add(
                id=f"s{number}",
                revision=1,
                status=common_pb2.SESSION_STATUS_IDLE,
                created_at_ms=now_ms,
                updated_at_ms=now_ms,
                labels={key: f"{number}".ljust(256, WIDE) for key in LABELS},
            )
        if number < CONTROLS:
            found[-1].controls.add(
                id=f"k{number}", kind=audit_pb2.CONTROL_KIND_STOP, principal=WIDE * 128, scope=WIDE * 1024, at_ms=now_ms
            )
        if number % 100 == 99:
            found.append(audit_pb2.RecordRequest(row_version=ROW_VERSION))
    return [batch for batch in found if batch.tool_calls]


async def test_no_page_has_more_bytes_than_clients_accept_and_all_pages_have_everything(make_pair):
    assert set(PAGED) == set(ASKED) | ALWAYS_SMALL | ELSEWHERE, "say here what a new list is asked"
    pair = await make_pair(Script(steps=(Step(text="done"),)))
    gateway = pair.start_gateway()  # which knows no ledger, so that its sessions are not on the record
    audit = pair.start_audit()
    large = pb.SessionSettings(labels={f"{number}".ljust(64, "k"): WIDE * 256 for number in range(32)})
    async with (
        grpc.aio.insecure_channel(audit.address) as to_audit,
        grpc.aio.insecure_channel(gateway.address) as to_us,
    ):
        recorder: Any = audit_pb2_grpc.AuditServiceStub(to_audit)
        for batch in batches():
            ack = await recorder.RecordBatch(batch, timeout=60)
            assert not ack.rejections
        sessions: Any = gateway_pb2_grpc.GatewayServiceStub(to_us)
        for _ in range(LARGE_SESSIONS):
            await sessions.CreateSession(pb.CreateSessionRequest(settings=large))
        for full_name, (fields, expected) in ASKED.items():
            method = PAGED[full_name]
            channel = to_us if "gateway" in full_name else to_audit
            stub = STUBS[method.containing_service.name](channel)
            request_type: Any = method.input_type
            asked = request_type._concrete_class(page_size=MAX_PAGE_SIZE, **fields)
            listed = pages_of(getattr(stub, method.name), asked, timeout=60)
            counts = [parts_of(page) async for page in listed]
            assert (sum(counts), min(counts) > 0) == (expected, True), full_name
            assert len(counts) > 1, f"{full_name}: one page has them all, so that no bound was met"
