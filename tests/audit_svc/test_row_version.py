"""A batch says the version of its rows, and a ledger takes none that it might store without a part."""

from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from onrecord.audit.v1 import audit_pb2, questions_pb2

from recording.row_version import ROW_VERSION
from tests.audit_svc.samples import audit_row, cost_row, request, session_row


async def refusal(call: Any, kind: type[Any]) -> Any:
    """The code of the status that call ends with, its reason, and its detail of that kind."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    status: Any = rpc_status.from_call(cast(grpc.Call, refused.value))
    info, wanted = error_details_pb2.ErrorInfo(), kind()
    assert any(detail.Unpack(info) for detail in status.details)
    assert any(detail.Unpack(wanted) for detail in status.details)
    return refused.value.code(), info.reason, wanted


def batch(version: int) -> audit_pb2.RecordRequest:
    """One row of each kind."""
    whole = request(audit_row(), model_requests=[cost_row()], sessions=[session_row()], last=1)
    whole.row_version = version
    return whole


async def recorded(ledger: Any, way: str, sent: audit_pb2.RecordRequest) -> Any:
    if way == "RecordBatch":
        return await ledger.RecordBatch(sent)
    stream = ledger.Record()
    await stream.write(sent)
    return await stream.read()


@pytest.mark.parametrize("way", ["Record", "RecordBatch"])
async def test_a_newer_batch_is_refused_whole_and_told_what_the_ledger_knows(ledger, way):
    code, reason, info = await refusal(recorded(ledger, way, batch(ROW_VERSION + 1)), error_details_pb2.ErrorInfo)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ROW_VERSION_TOO_NEW")
    assert dict(info.metadata) == {"row_version": str(ROW_VERSION)}
    assert not (await ledger.ListToolCalls(questions_pb2.ListToolCallsRequest())).tool_calls
    assert not (await ledger.ListSessionRecords(questions_pb2.ListSessionRecordsRequest())).sessions


@pytest.mark.parametrize("version", [0, -1])
@pytest.mark.parametrize("way", ["Record", "RecordBatch"])
async def test_a_batch_that_names_no_version_is_refused(ledger, way, version):
    code, reason, request = await refusal(recorded(ledger, way, batch(version)), error_details_pb2.BadRequest)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    (violation,) = request.field_violations
    assert violation.field == "row_version"
    assert f"takes 1 to {ROW_VERSION}" in violation.description
    assert not (await ledger.ListToolCalls(questions_pb2.ListToolCallsRequest())).tool_calls


@pytest.mark.parametrize("version", range(1, ROW_VERSION + 1))
async def test_every_version_up_to_its_own_is_taken(ledger, version):
    answer = await ledger.RecordBatch(batch(version))
    assert (answer.stored, list(answer.rejections)) == (3, [])
    assert answer.range == audit_pb2.SequenceRange(producer_id="p", first=1, last=1)
