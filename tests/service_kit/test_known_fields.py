"""A request with what this version does not know is refused with its path, wherever in it that lies."""

from typing import Any

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from onrecord.audit.v1 import questions_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from service_kit.access import known_fields
from service_kit.access.known_fields import NAMED_BYTES, check_known
from service_kit.errors import InvalidRequest

UNKNOWN = b"\xc2\x3e\x02hi"  # field 1000, a text
FILTER = questions_pb2.ToolCallFilter(session_id="s", outcomes=[common_pb2.OUTCOME_DENIED], labels={"team": "a"})


def with_unknown(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString() + UNKNOWN)


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (with_unknown(pb.ListEnginesRequest()), "1000"),
        (questions_pb2.ListToolCallsRequest(filter=with_unknown(FILTER)), "filter.1000"),
        (
            pb.CreateSessionRequest(
                settings=pb.SessionSettings(shadows=[pb.EngineChoice(), with_unknown(pb.EngineChoice(engine="e"))])
            ),
            "settings.shadows.1000",
        ),
        (
            questions_pb2.ListToolCallsRequest(filter=questions_pb2.ToolCallFilter(outcomes=[1, 99])),  # type: ignore[list-item] # of a newer client
            "filter.outcomes",
        ),
        (approvals_pb2.AnswerToolCallRequest(tool_call_id="c", verdict=99), "verdict"),  # type: ignore[arg-type] # as above
    ],
)
def test_what_is_not_known_is_refused_by_its_path(request_, path):
    with pytest.raises(InvalidRequest) as refused:
        check_known(type(request_).FromString(request_.SerializeToString()))
    assert refused.value.field == path
    assert path in str(refused.value)


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The messages whose unknown fields are made objects of."""
    found: list[Any] = []

    def walk(message: Any) -> Any:
        found.append(message)
        return UnknownFieldSet(message)

    monkeypatch.setattr(known_fields, "UnknownFieldSet", walk)
    return found


def test_of_very_many_none_is_named_nor_looked_at(walked):
    """They would be made objects of, all of them."""
    choice = pb.EngineChoice.FromString(b"\xc0\x3e\x01" * 100_000)
    with pytest.raises(InvalidRequest, match="has fields that this version does not know"):
        check_known(pb.CreateSessionRequest(settings=pb.SessionSettings(shadows=[choice])))
    assert walked == []


@pytest.mark.parametrize("over", [0, 1])
def test_as_many_bytes_of_them_as_the_bound_are_looked_at_and_no_more(walked, over):
    size = NAMED_BYTES + over - 4  # behind the field's number and the text's length, of two bytes each
    request = pb.ListEnginesRequest.FromString(b"\xc2\x3e" + bytes([size & 0x7F | 0x80, size >> 7]) + b"x" * size)
    assert request.ByteSize() == NAMED_BYTES + over
    with pytest.raises(InvalidRequest) as refused:
        check_known(request)
    assert (refused.value.field, len(walked)) == (("", 0) if over else ("1000", 1))


@pytest.mark.parametrize(
    "request_",
    [
        pb.ListEnginesRequest(),
        questions_pb2.ListToolCallsRequest(filter=FILTER, page_size=3),
        pb.CreateSessionRequest(settings=pb.SessionSettings(labels={"a": "b"}, max_cost_micros=0)),
    ],
)
def test_what_is_known_passes(request_):
    check_known(type(request_).FromString(request_.SerializeToString()))
