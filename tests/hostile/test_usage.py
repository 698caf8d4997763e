"""A reader that asks for usage in as many groups as there are rows: it gets its page, and costs no more than that."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2, audit_pb2_grpc, questions_pb2, questions_pb2_grpc
from onrecord.common.v1 import common_pb2

from tests.hostile.conftest import Start
from tests.hostile.held import MIB, forget_peak, memory
from tests.hostile.honest import honest_caller

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(300)]

SESSIONS = 90_000
AT_ONCE = 1000
LABELS = ("label:k0", "label:k1", "label:k2")
MOST = ("session", "tool", "outcome", "model", "hour", *LABELS)
QUESTIONS = (LABELS, ("session", *LABELS), MOST)
ASKERS = 4


def fill(address: str, calls: int) -> None:
    """So many calls for each session, which has labels of its own."""
    now_ms = time.time_ns() // 1_000_000
    with grpc.insecure_channel(address) as channel:
        stub: Any = audit_pb2_grpc.AuditServiceStub(channel)
        for first in range(0, SESSIONS, AT_ONCE):
            batch = audit_pb2.RecordRequest(row_version=1)
            for number in range(first, first + AT_ONCE):
                batch.sessions.add(
                    id=f"s{number}",
                    revision=1,
                    status=common_pb2.SESSION_STATUS_IDLE,
                    created_at_ms=now_ms,
                    updated_at_ms=now_ms,
                    labels={f"k{key}": f"value {key} of {number}" for key in range(3)},
                )
                batch.tool_calls.add(
                    id=f"c{number}",
                    session_id=f"s{number}",
                    tool_name="read",
                    outcome=common_pb2.OUTCOME_SUCCEEDED,
                    created_at_ms=now_ms,
                )
            ack = stub.RecordBatch(batch, timeout=60)
            assert ack.stored == 2 * AT_ONCE, ack.rejections[:1]
            for further in range(1, calls):
                for call in batch.tool_calls:
                    call.id = f"{call.session_id}-{further}"
                ack = stub.RecordBatch(audit_pb2.RecordRequest(row_version=1, tool_calls=batch.tool_calls), timeout=60)
                assert ack.stored == AT_ONCE, ack.rejections[:1]


def ask(stub: Any, groups: tuple[str, ...]) -> None:
    """Asks for usage; there are more groups than a page has."""
    page = stub.SummarizeUsage(questions_pb2.SummarizeUsageRequest(group_by=groups), timeout=240)
    assert len(page.groups) == 100
    assert page.next_page_token


@pytest.mark.parametrize("calls", [1, pytest.param(17, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_many_groups_cost_no_more_than_their_page(start: Start, calls: int):
    """Beside ingest: 90,000 groups by labels, sessions and hours, from sums, and from as many rows or 1.5 million.

    Also when four ask at once for the most groups.
    """
    service = start("audit_svc")
    fill(service.address, calls)
    with honest_caller(service, "audit_svc"), grpc.insecure_channel(service.address) as channel:
        stub: Any = questions_pb2_grpc.QuestionServiceStub(channel)
        for groups in QUESTIONS:
            before = forget_peak(service)
            ask(stub, groups)
            # SQLite's cache, and what it sorts: groups as objects took 150 MB and more.
            assert memory(service, "VmHWM") - before < 80 * MIB, groups
        before = forget_peak(service)
        with ThreadPoolExecutor(ASKERS) as pool:
            list(pool.map(lambda _: ask(stub, MOST), range(ASKERS)))
        assert memory(service, "VmHWM") - before < ASKERS * 64 * MIB
