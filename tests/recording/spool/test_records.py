"""The payloads of the spool's records."""

from hypothesis import given
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2

from recording.logger import Row
from recording.spool import records
from tests.recording.samples import tool_call


@given(st.integers(0, 2**63 - 1))
def test_a_varint_is_what_protobuf_writes(value: int) -> None:
    covered = audit_pb2.SequenceRange(first=value)
    assert covered.SerializeToString() == (b"\x10" + records.encode_varint(value) if value else b"")


def test_payloads_behind_each_other_are_a_request() -> None:
    """Sending encodes nothing again: what lies on disk is what goes over the wire."""
    first, last = tool_call(1), tool_call(2, args_summary="y" * 20_000)
    cost = audit_pb2.CostRow(id="cost", model="m", input_tokens=5)
    session = audit_pb2.SessionRow(id="session", labels={"team": "x" * 200})
    rows: list[Row] = [first, cost, session, last]
    data = b"".join(map(records.encode_row, rows))
    expected = audit_pb2.RecordRequest(tool_calls=[first, last], model_requests=[cost], sessions=[session])
    assert audit_pb2.RecordRequest.FromString(data) == expected
    assert [records.decode_row(records.encode_row(row)) for row in rows] == rows
    assert [records.is_tool_call(records.encode_row(row)) for row in rows] == [True, False, False, True]
    call, request, state = audit_pb2.ROW_KIND_TOOL_CALL, audit_pb2.ROW_KIND_MODEL_REQUEST, audit_pb2.ROW_KIND_SESSION
    assert [records.kind_of_row(records.encode_row(row)) for row in rows] == [call, request, state, call]
