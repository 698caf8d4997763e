"""Producers that send without end and never read an answer, beside one that sends a batch at a time."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2, audit_pb2_grpc
from onrecord.common.v1 import common_pb2

from tests.hostile.conftest import Start
from tests.hostile.held import MIB, forget_peak, memory
from tests.hostile.honest import honest_caller

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(300)]

STREAMS = 200
ROWS = 5000
SECONDS = 3
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.lookahead_bytes", 16), ("grpc.http2.bdp_probe", 0)]
"""A window that no answer fits into."""


def batch() -> bytes:
    now_ms = time.time_ns() // 1_000_000
    row = audit_pb2.AuditRow(tool_name="read", outcome=common_pb2.OUTCOME_SUCCEEDED, created_at_ms=now_ms)
    rows = [audit_pb2.AuditRow(id=str(number)) for number in range(ROWS)]
    for one in rows:
        one.MergeFrom(row)
    return audit_pb2.RecordRequest(row_version=1, tool_calls=rows).SerializeToString()


def test_streams_whose_answers_are_never_read_neither_starve_single_batches_nor_fill_the_memory(start: Start):
    service, payload, over = start("audit_svc"), batch(), threading.Event()

    def without_end() -> Iterator[bytes]:
        while not over.is_set():
            yield payload

    with ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(service.address, OPTIONS)) for _ in range(STREAMS // 4)]
        stack.callback(over.set)
        before = forget_peak(service)
        with honest_caller(service, "audit_svc"):
            streams: list[Any] = []
            for number in range(STREAMS):
                method: Any = channels[number % len(channels)].stream_stream("/onrecord.audit.v1.AuditService/Record")
                streams.append(method(without_end()))
            time.sleep(SECONDS)  # of load: nothing is waited for
        assert memory(service, "VmHWM") - before < 256 * MIB
        ended = [stream.code() for stream in streams if stream.done()]
        assert set(ended) <= {grpc.StatusCode.RESOURCE_EXHAUSTED}
        for stream in streams:
            stream.cancel()
    with grpc.insecure_channel(service.address) as channel:
        stub: Any = audit_pb2_grpc.AuditServiceStub(channel)
        assert stub.RecordBatch(audit_pb2.RecordRequest.FromString(payload), timeout=60).duplicates == ROWS
