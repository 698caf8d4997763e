"""What is counted of a request before it is parsed."""

from contextlib import nullcontext, suppress

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from service_kit.access import request_parts
from service_kit.access.request_parts import MAX_PARTS, PIECE_BYTES, check_parts, parse_in_steps, request_type
from service_kit.errors import InvalidRequest

LARGE = "x" * request_parts.COUNTED_FROM_BYTES
CHOICES = [pb.EngineChoice()] * (MAX_PARTS + 1)
LABELS = {str(number): "" for number in range(MAX_PARTS + 1)}
FILTER = questions_pb2.ToolCallFilter(session_id=LARGE, outcomes=[common_pb2.OUTCOME_DENIED] * (MAX_PARTS + 1))


@pytest.mark.parametrize(
    "request_",
    [
        audit_pb2.RecordRequest(
            sessions=[audit_pb2.SessionRow()] * (MAX_PARTS + 1), range=audit_pb2.SequenceRange(producer_id=LARGE)
        ),
        pb.RunTurnRequest(input=LARGE, new_session=pb.SessionSettings(shadows=CHOICES)),
        questions_pb2.ListToolCallsRequest(filter=FILTER),
        audit_pb2.RecordRequest(sessions=[audit_pb2.SessionRow(labels=LABELS)]),
    ],
)
def test_parts_are_counted_at_any_depth_of_messages_that_come_once_or_are_large(request_):
    with pytest.raises(InvalidRequest, match="12,000 parts"):
        check_parts(request_.SerializeToString(), request_.DESCRIPTOR)


def test_the_largest_batch_and_the_longest_turn_pass():
    row = audit_pb2.AuditRow(id="x" * 36, tool_name="read", args_summary="y" * 100)
    batch = audit_pb2.RecordRequest(row_version=1, tool_calls=[row] * 10_000)
    check_parts(batch.SerializeToString(), batch.DESCRIPTOR)
    batch = audit_pb2.RecordRequest(tool_calls=[audit_pb2.AuditRow(args_summary=LARGE)] * 60)  # each is rejected alone
    check_parts(batch.SerializeToString(), batch.DESCRIPTOR)
    turn = pb.RunTurnRequest(input="x" * 2**20, new_session=pb.SessionSettings(system_prompt="y" * 2**20))
    check_parts(turn.SerializeToString(), turn.DESCRIPTOR)


@pytest.mark.parametrize("rows", [0, 1, 5000])
def test_a_large_request_is_parsed_in_small_pieces_and_is_the_same(rows):
    row = audit_pb2.AuditRow(id="x" * 36, tool_name="read", args_summary="y" * 100)
    range_ = audit_pb2.SequenceRange(producer_id=LARGE, first=1, last=rows)
    data = audit_pb2.RecordRequest(row_version=1, tool_calls=[row] * rows, range=range_).SerializeToString()
    steps = parse_in_steps(data, audit_pb2.RecordRequest.DESCRIPTOR)
    pieces, parsed = 0, None
    while parsed is None:
        try:
            next(steps)
            pieces += 1
        except StopIteration as done:
            parsed = done.value
    assert parsed == audit_pb2.RecordRequest.FromString(data)
    assert pieces >= rows * row.ByteSize() // (PIECE_BYTES + row.ByteSize())


@pytest.mark.parametrize("parts", [MAX_PARTS, MAX_PARTS + 1])
def test_parts_of_all_pieces_are_counted_together(parts):
    data = audit_pb2.RecordRequest(tool_calls=[audit_pb2.AuditRow(id="x" * 10)] * parts).SerializeToString()
    with pytest.raises(InvalidRequest) if parts > MAX_PARTS else nullcontext():
        list(parse_in_steps(data, audit_pb2.RecordRequest.DESCRIPTOR))


@given(st.binary(min_size=1, max_size=300))
def test_what_no_parser_takes_is_left_to_the_parser(some):
    data = some * (request_parts.COUNTED_FROM_BYTES // max(1, len(some)) + 1)
    with suppress(InvalidRequest):
        check_parts(data, audit_pb2.RecordRequest.DESCRIPTOR)
    with suppress(InvalidRequest, DecodeError):
        list(parse_in_steps(data, audit_pb2.RecordRequest.DESCRIPTOR))


def test_the_type_of_a_method_is_found_by_its_name():
    assert request_type("/onrecord.audit.v1.AuditService/Record") is audit_pb2.RecordRequest.DESCRIPTOR
    assert request_type("/onrecord.audit.v1.AuditService/Rekord") is None
    assert request_type("/unknown.Service/Method") is None
