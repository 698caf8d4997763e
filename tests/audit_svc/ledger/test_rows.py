"""Which rows can be stored, and what is said of those that cannot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.errors import InvalidRequest
from audit_svc.ledger.batch import MAX_ROWS, Batch, read_batch
from audit_svc.ledger.columns import MAX_TIME_MS, MIN_TIME_MS
from audit_svc.ledger.records import tool_call_record
from audit_svc.ledger.tables import CONTROL_COLUMNS, COST_COLUMNS, SESSION_COLUMNS, TOOL_CALL_COLUMNS
from tests.audit_svc.samples import NOW_MS, audit_row, batch, cost_row, record_request, request, session_row

INVALID = audit_pb2.REJECTION_CODE_INVALID
TOO_LARGE = audit_pb2.REJECTION_CODE_TOO_LARGE


def costs(*rows: audit_pb2.CostRow) -> Batch:
    return read_batch(record_request(model_requests=rows), NOW_MS)


def sessions(*rows: audit_pb2.SessionRow) -> Batch:
    return read_batch(record_request(sessions=rows), NOW_MS)


WRONG = [
    (batch(audit_row(id="")), INVALID, "id is empty"),
    (batch(audit_row(id="x" * 129)), TOO_LARGE, "id is longer than 128 characters"),
    (batch(audit_row(session_id="x" * 129)), TOO_LARGE, "session_id is longer than 128 characters"),
    (batch(audit_row(engine="x" * 65)), TOO_LARGE, "engine is longer than 64 characters"),
    (batch(audit_row(tool_name="")), INVALID, "tool_name is empty"),
    (batch(audit_row(tool_name="x" * 10_000_000)), TOO_LARGE, "tool_name is longer than 128 characters"),
    (batch(audit_row(args_summary="é" * 2049)), TOO_LARGE, "args_summary is longer than 4096 bytes"),
    (batch(audit_row(error="é" * 1025)), TOO_LARGE, "error is longer than 2048 bytes"),
    (batch(audit_row(model="x" * 257)), TOO_LARGE, "model is longer than 256 characters"),
    (batch(audit_row(provider_call_id="x" * 257)), TOO_LARGE, "provider_call_id is longer than 256 characters"),
    (batch(audit_row(turn_id="x" * 129)), TOO_LARGE, "turn_id is longer than 128 characters"),
    (batch(audit_row(duration_ms=-1)), INVALID, "duration_ms is not in 0 to 9223372036854775807"),
    (batch(audit_row(result_bytes=-1)), INVALID, "result_bytes is not in 0 to 9223372036854775807"),
    (batch(audit_row(http_status=-1)), INVALID, "http_status is not in 0 to 9223372036854775807"),
    (batch(audit_row(created_at_ms=0)), INVALID, "created_at_ms is before the year 2000"),
    (batch(audit_row(created_at_ms=MIN_TIME_MS - 1)), INVALID, "created_at_ms is before the year 2000"),
    (
        batch(audit_row(created_at_ms=MAX_TIME_MS + 1)),
        INVALID,
        "created_at_ms is after the year 9999",
    ),
    (
        batch(audit_pb2.AuditRow.FromString(audit_row(id="a").SerializeToString() + b"\x68\x63")),
        INVALID,
        "outcome has a value that this ledger does not know",
    ),
    (batch(audit_row(outcome=common_pb2.OUTCOME_UNSPECIFIED)), INVALID, "outcome is not set"),
    (costs(cost_row(id="")), INVALID, "id is empty"),
    (costs(cost_row(input_tokens=-1)), INVALID, "input_tokens is not in 0 to 9223372036854775807"),
    (costs(cost_row(cost_micros=-1)), INVALID, "cost_micros is not in 0 to 9223372036854775807"),
    (costs(cost_row(requested_model="x" * 257)), TOO_LARGE, "requested_model is longer than 256 characters"),
    (sessions(session_row(id="")), INVALID, "id is empty"),
    (sessions(session_row(revision=-1)), INVALID, "revision is not in 0 to 9223372036854775807"),
    (sessions(session_row(status=common_pb2.SESSION_STATUS_UNSPECIFIED)), INVALID, "status is not set"),
    (sessions(session_row(usage={"requests": -1})), INVALID, "usage.requests is not in 0 to 9223372036854775807"),
    (
        sessions(session_row(usage={"known_cost_micros": -1})),
        INVALID,
        "usage.known_cost_micros is not in 0 to 9223372036854775807",
    ),
    (sessions(session_row(updated_at_ms=1)), INVALID, "updated_at_ms is before the year 2000"),
    (
        sessions(session_row(labels={f"k{n}": "" for n in range(33)})),
        TOO_LARGE,
        "labels has more than 32 entries",
    ),
    (
        sessions(session_row(labels={"k" * 65: ""})),
        TOO_LARGE,
        "labels has a key that is longer than 64 characters",
    ),
    (
        sessions(session_row(labels={"k": "v" * 257})),
        TOO_LARGE,
        "labels has a value that is longer than 256 characters",
    ),
    (sessions(session_row(labels={"k\0": ""})), INVALID, "labels has a key with a control character"),
    (sessions(session_row(labels={"k": "\x1b"})), INVALID, "labels has a value with a control character"),
]


@pytest.mark.parametrize(("wrong", "code", "message"), WRONG, ids=[entry[2][:40] for entry in WRONG])
def test_a_row_beyond_a_limit_is_rejected_with_a_sentence_that_names_the_field_and_quotes_no_value(
    wrong, code, message
):
    (rejection,) = wrong.rejections
    assert (rejection.index, len(wrong)) == (0, 0)
    assert rejection.field == message.partition(" ")[0]
    assert (rejection.code, rejection.message) == (code, message)
    assert len(rejection.id) <= 128


@pytest.mark.parametrize(
    "row",
    [
        audit_row(
            id="é" * 128,
            session_id="é" * 128,
            engine="é" * 64,
            tool_name="é" * 128,
            args_summary="é" * 2048,
            error="é" * 1024,
            model="é" * 256,
            provider_call_id="é" * 256,
            turn_id="é" * 128,
        ),
        audit_row(exit_code=-(2**31), duration_ms=2**63 - 1, result_bytes=2**63 - 1, redaction_version=2**32 - 1),
        audit_row(created_at_ms=MIN_TIME_MS),
        audit_row(created_at_ms=MAX_TIME_MS),
        audit_row(args_summary="", model="", provider_call_id="", turn_id=""),
    ],
    ids=["longest texts", "largest numbers", "earliest", "latest", "least"],
)
def test_a_row_at_a_limit_is_accepted(row):
    accepted = batch(row)
    assert accepted.rejections == []
    assert len(accepted) == 1


def test_neighbours_of_a_wrong_row_are_kept_with_their_places():
    mixed = batch(audit_row(id="a"), audit_row(id=""), audit_row(id="b"), audit_row(duration_ms=-1), audit_row(id="c"))
    assert [row[0] for row in mixed.tool_calls.rows()] == ["a", "b", "c"]
    assert list(mixed.tool_calls.positions) == [0, 2, 4]
    assert [rejection.index for rejection in mixed.rejections] == [1, 3]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (request(*[audit_row(id="x")] * (MAX_ROWS + 1)), "10001 rows"),
        (request(producer_id="p" * 129, last=1), "range.producer_id"),
        (request(producer_id="", last=1), "range.producer_id"),
        (request(first=-1, last=4), "range.first is below 1"),
        (request(first=5, last=4), "range.last is below range.first"),
    ],
    ids=["rows", "producer", "no producer", "first", "last"],
)
def test_a_request_that_can_never_be_stored_is_refused_as_a_whole(wrong, message):
    with pytest.raises(InvalidRequest, match=message):
        read_batch(wrong, NOW_MS)


@pytest.mark.parametrize(
    ("message", "columns", "apart"),
    [
        (audit_pb2.AuditRow, TOOL_CALL_COLUMNS, set()),
        (audit_pb2.CostRow, COST_COLUMNS, set()),
        (audit_pb2.SessionRow, SESSION_COLUMNS, {"labels"}),
        (audit_pb2.ControlRow, CONTROL_COLUMNS, set()),
    ],
)
def test_every_field_of_the_wire_has_its_column(message, columns, apart):
    fields = {
        f"{field.name}.{part.name}" if field.message_type else field.name
        for field in message.DESCRIPTOR.fields
        if field.name not in apart
        for part in (field.message_type.fields if field.message_type else [field])
    }
    assert fields == {column.wire_name for column in columns}


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=64)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=64)
rows = st.builds(
    audit_row,
    id=names.filter(bool),
    session_id=names.filter(bool),
    engine=names.filter(bool),
    tool_name=names.filter(bool),
    args_summary=texts,
    duration_ms=st.integers(0, 2**63 - 1),
    exit_code=st.none() | st.integers(-(2**31), 2**31 - 1),
    http_status=st.none() | st.integers(1, 2**31 - 1),
    error=st.none() | texts.filter(bool),
    result_truncated=st.booleans(),
    created_at_ms=st.integers(MIN_TIME_MS, NOW_MS),
    outcome=st.sampled_from([value for value in common_pb2.Outcome.values() if value]),
)


@given(rows)
def test_a_row_is_the_same_after_the_way_into_its_columns_and_back(row):
    accepted = batch(row)
    (values,) = accepted.tool_calls.with_all(TOOL_CALL_COLUMNS).rows()
    record = tool_call_record((7, "gw", 8), values)
    receipt = record.receipt
    assert (record.tool_call, receipt.position, receipt.recorded_by, receipt.recorded_at_ms) == (row, 7, "gw", 8)


@given(
    st.lists(rows | st.builds(audit_row, id=st.just("")) | st.builds(audit_row, duration_ms=st.just(-1)), max_size=8)
)
def test_a_batch_is_judged_as_its_rows_are_judged_alone(several):
    together = batch(*several)
    alone = [batch(row) for row in several]
    assert [each.index for each in together.rejections] == [n for n, one in enumerate(alone) if one.rejections]
    kept = [row for one in alone for row in one.tool_calls.with_all(TOOL_CALL_COLUMNS).rows()]
    assert list(together.tool_calls.with_all(TOOL_CALL_COLUMNS).rows()) == kept
