"""Streamed tool calls, as OpenAI sends them and as other servers have been seen to."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_svc.engines.wire.encoding import build_calls
from gateway_svc.engines.wire.fragments import CallAssembler
from service_kit.bounds import Tally

A, B = '{"path": "a"}', '{"path": "b"}'
BOTH = [("1", "read", A), ("2", "read", B)]


def fragment(
    arguments: object = None, *, index: object = None, call_id: str | None = None, name: str | None = None
) -> dict[str, Any]:
    function = {key: value for key, value in {"name": name, "arguments": arguments}.items() if value is not None}
    given = {"index": index, "id": call_id, "function": function}
    return {key: value for key, value in given.items() if value is not None}


def assemble(*fragments: dict[str, Any]) -> list[tuple[str, str, str]]:
    assembler = CallAssembler(Tally())
    for piece in fragments:
        assembler.add(piece)
    return assembler.calls()


@pytest.mark.parametrize(
    "fragments",
    [
        pytest.param(
            [
                fragment("", index=0, call_id="1", name="read"),
                fragment(A[:5], index=0),
                fragment("", index=1, call_id="2", name="read"),
                fragment(A[5:], index=0),
                fragment(B, index=1),
            ],
            id="OpenAI: by index, also out of order",
        ),
        pytest.param(
            [
                fragment("", index=0, call_id="1", name="read"),
                fragment(A, index=0, call_id=""),
                fragment("", index=0, call_id="2", name="read"),
                fragment(B, index=0, call_id=""),
            ],
            id="vLLM: index 0 for every call, an empty id behind the first fragment",
        ),
        pytest.param(
            [
                fragment(A[:4], index=0, call_id="1", name="read"),
                fragment(A[4:], index=0, call_id="1", name="read"),
                fragment(B[:4], index=1, call_id="2", name="read"),
                fragment(B[4:], index=1, call_id="2", name="read"),
            ],
            id="SGLang: id and name in every fragment",
        ),
        pytest.param(
            [fragment(A, call_id="1", name="read"), fragment(B, call_id="2", name="read")], id="whole calls, no index"
        ),
        pytest.param(
            [
                fragment(A[:4], call_id="1", name="read"),
                fragment(A[4:]),
                fragment(B[:4], call_id="2", name="read"),
                fragment(B[4:]),
            ],
            id="fragments, no index",
        ),
        pytest.param(
            [
                fragment(A, index=0, call_id="1", name="read"),
                fragment(B[:3], index=0, call_id="2", name="read"),
                fragment(B[3:], index=1),
            ],
            id="DeepSeek behind a gateway: the second call begins with the first one's index",
        ),
        pytest.param(
            [
                fragment({"path": "a"}, index=0, call_id="1", name="read"),
                fragment(B, index=1, call_id="2", name="read"),
            ],
            id="arguments as an object",
        ),
        pytest.param(
            [
                fragment(A[:5], call_id="1", name="read"),
                fragment(B[:5], call_id="2", name="read"),
                fragment(A[5:], call_id="1"),
                fragment(B[5:], call_id="2"),
            ],
            id="in turn, told apart by their ids alone",
        ),
        pytest.param(
            [
                fragment(A, index=0, call_id="1", name="read"),
                fragment(B, index=1, call_id="2", name="read"),
                fragment(A, index=2, call_id="1", name="read"),
                fragment(B, index=3, call_id="2", name="read"),
            ],
            id="new-api: all calls once more, at other indexes",
        ),
    ],
)
def test_two_calls_come_out_as_two(fragments):
    calls = assemble(*fragments)
    assert [call[:2] for call in calls] == [call[:2] for call in BOTH]
    assert [json.loads(call[2]) for call in calls] == [json.loads(call[2]) for call in BOTH]


HEAD = fragment("", index=0, call_id="1", name="read")
SPACED = '{ "path" : "a" }'


@pytest.mark.parametrize(
    "fragments",
    [
        pytest.param([HEAD, *(fragment(A[:end], index=0) for end in (4, 9, 14))], id="Qianfan: all so far in each"),
        pytest.param(
            [HEAD, *(fragment(A[:end], index=0, call_id="1", name="read") for end in (4, 9, 14, 14))],
            id="all so far in each, with id and name",
        ),
        pytest.param([HEAD, fragment(A[:6], index=0), fragment(A[6:], index=0), fragment(A, index=0)], id="all again"),
        pytest.param([HEAD, fragment(A, index=0), fragment(A, index=0, call_id="1")], id="all again with its id"),
        pytest.param([HEAD, fragment(A, index=0), fragment(A, index=0, name="read")], id="all again with its name"),
        pytest.param(
            [HEAD, fragment(A, index=0), fragment(SPACED, index=0, call_id="1", name="read")],
            id="all again in other spacing",
        ),
        pytest.param(
            [
                HEAD,
                fragment(A, index=0, call_id="1"),
                fragment("", index=1, call_id="1", name="read"),
                fragment(A, index=1, call_id="1"),
                fragment(A, index=2, call_id="1", name="read"),
            ],
            id="LocalAI: one call at three indexes",
        ),
        pytest.param(
            [HEAD, fragment(A[:6], index=0), fragment(A, index=1, call_id="1", name="read")],
            id="a part of a call, and the whole of it at another index",
        ),
        pytest.param([HEAD, fragment(A, index=1, call_id="1")], id="name and arguments at two indexes"),
        pytest.param(
            [HEAD, *(fragment(piece, index=0, call_id="", name="null") for piece in (A[:6], A[6:]))],
            id="null as a word for each later name",
        ),
        pytest.param(
            [fragment("", index=0, call_id="1", name=""), fragment(A, index=0, call_id="1", name="read")],
            id="an empty name until it is known",
        ),
        pytest.param([{"index": 0, "id": "1", "name": "read", "arguments": A}], id="no function around it"),
    ],
)
def test_one_call_comes_out_as_one(fragments):
    ((given, name, arguments),) = assemble(*fragments)
    assert (given, name, json.loads(arguments)) == ("1", "read", json.loads(A))


@pytest.mark.parametrize("index", [0, None])
def test_calls_in_turn_are_told_apart_by_their_ids(index):
    heads = [fragment("", index=index, call_id=given, name=name) for given, name in (("1", "read"), ("2", "bash"))]
    pieces = [("1", A[:5]), ("2", B[:5]), ("1", A[5:]), ("2", B[5:])]
    told = [fragment(piece, index=index, call_id=given) for given, piece in pieces]
    assert assemble(*heads, *told) == [("1", "read", A), ("2", "bash", B)]


def test_an_object_in_an_object_is_no_repetition():
    """Its second piece begins with its first."""
    nested = fragment('{"a":', index=0, call_id="1", name="read"), fragment('{"a":1}}', index=0)
    assert assemble(*nested) == [("1", "read", '{"a":{"a":1}}')]


def test_two_calls_with_one_id_are_two_if_their_arguments_differ():
    first, second = fragment(A, index=0, call_id="1", name="read"), fragment(B, index=1, call_id="1", name="read")
    assert assemble(first, second, fragment("{}", index=2, call_id="1", name="now")) == [
        ("1", "read", A),
        ("1", "read", B),
        ("1", "now", "{}"),
    ]


@pytest.mark.parametrize("index", [0, None])
def test_whole_calls_without_ids_are_told_apart_even_by_one_index(index):
    calls = assemble(fragment(A, index=index, name="read"), fragment(B, index=index, name="read"))
    assert calls == [("", "read", A), ("", "read", B)]


@pytest.mark.long
@given(st.lists(st.integers(min_value=0, max_value=len(A)), max_size=6), st.sampled_from(["read", None]))
def test_arguments_may_be_split_anywhere(cuts, name):
    """Also when a server without ids repeats the name in every fragment."""
    edges = sorted({0, len(A), *cuts})
    parts = [A[start:end] for start, end in pairwise(edges)]
    first = fragment(parts[0], index=0, name="read")
    assert assemble(first, *(fragment(part, index=0, name=name) for part in parts[1:])) == [("", "read", A)]


def test_a_call_without_any_arguments_has_an_empty_object():
    """Some models write nothing for a tool without parameters."""
    assert assemble(fragment(index=0, call_id="1", name="now")) == [("1", "now", "{}")]


@pytest.mark.parametrize(
    "broken", [{"function": []}, {"function": {"name": []}}, {"id": {}}, {"function": {"arguments": True}}]
)
def test_a_fragment_of_another_shape_is_refused(broken):
    with pytest.raises(ValueError, match="instead of"):
        assemble(broken)


def test_ids_that_are_missing_or_repeated_are_made_up_and_audit_ids_are_always_ours():
    calls = build_calls([("a", "read", A), ("a", "read", B), ("", "read", A), ("", "bash", A)])
    ids = [call.provider_call_id for call in calls]
    assert ids[0] == "a"
    assert len(set(ids)) == 4
    assert all(len(made_up) == 9 and made_up.isalnum() for made_up in ids[1:]), "a form that every server takes"
    assert len({call.id for call in calls}) == 4
    assert [call.id for call in calls] == sorted(call.id for call in calls)
    assert all(call.id[14] == "7" for call in calls)


def test_a_name_that_comes_in_pieces_is_one_name_and_no_call_of_its_first_piece():
    pieces = fragment(index=0, call_id="1", name="re"), fragment(index=0, name="ad"), fragment(A, index=0)
    assert assemble(*pieces) == [("1", "read", A)]
