"""Fragments and ends of any kind never yield a call that no fragment with arguments made."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_svc.engines.openai.chat_answer import ChatAnswer
from gateway_svc.engines.wire.encoding import build_calls
from gateway_svc.engines.wire.fragments import CallAssembler
from gateway_svc.engines.wire.names import WireNames
from service_kit.bounds import EVENT_FRAGMENTS, REREAD, Exceeded, Tally

NOTHING = ("", None)
PIECES = ["", None, "{", '{"a', '": 1}', '{"a": 1}', "{}", " "]

fragments = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "index": st.sampled_from([0, 1, None, "0"]),
            "id": st.sampled_from(["", "A", "B", None, 7]),
            "name": st.sampled_from(["", "read", "bash", None]),
            "arguments": st.sampled_from(PIECES),
        },
    ),
    max_size=8,
)


def assemble(told: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    assembler = CallAssembler(Tally())
    for part in told:
        function = {name: part[name] for name in ("name", "arguments") if name in part}
        assembler.add({**{name: part[name] for name in ("index", "id") if name in part}, "function": function})
    return assembler.calls()


def written(told: list[dict[str, Any]]) -> list[str]:
    return [part["arguments"] for part in told if (part.get("arguments") or "").strip()]


@pytest.mark.long
@given(fragments)
def test_all_arguments_are_in_some_call_and_none_is_made_up(told):
    calls = assemble(told)
    pieces = written(told)
    in_calls = "".join(call[2] for call in calls if call[2] != "{}")
    assert len(in_calls.replace(" ", "")) <= len("".join(pieces).replace(" ", ""))
    made = sum(call[2] != "{}" for call in calls)
    assert made <= len(pieces)


@given(fragments)
def test_a_call_without_arguments_is_one_that_begins_at_a_place_of_its_own(told):
    """What only repeats a name or an id at the place of a call begins none."""
    empty = [call for call in assemble(told) if call[2] == "{}"]
    told_whole = sum(piece.strip() == "{}" for piece in written(told))
    heads = {part.get("index") if part.get("index") != "0" else 0 for part in told}
    assert len(empty) <= len(heads) + told_whole


@pytest.mark.long
@given(fragments, st.sampled_from(["read", "bash"]), st.sampled_from(["A", "C", "", None]))
def test_a_name_once_more_at_the_end_runs_nothing_twice(told, name, given_id):
    at = [part for part in told if part.get("index") in (0, "0")]
    if not assemble(at):
        return
    again = assemble([*at, {"index": 0, "id": given_id, "name": name, "arguments": ""}])
    assert [call[2] for call in again] == [call[2] for call in assemble(at)]


OBJECTS = st.dictionaries(st.text(max_size=4), st.none() | st.text(max_size=4) | st.lists(st.integers(), max_size=2))


@pytest.mark.long
@given(OBJECTS, st.text(max_size=6), st.booleans())
def test_only_an_object_that_was_encoded_twice_is_decoded_once_more(held, text, ascii_only):
    written = json.dumps(held, ensure_ascii=ascii_only)
    (call,) = build_calls([("", "read", json.dumps(written, ensure_ascii=ascii_only))])
    assert json.loads(call.arguments) == held
    for kept in (json.dumps({"text": written}), json.dumps(text), json.dumps(json.dumps([held]))):
        (call,) = build_calls([("", "read", kept)])
        assert call.arguments == kept


@pytest.mark.long
@given(OBJECTS, st.lists(st.integers(1, 5), min_size=1), st.booleans())
def test_an_object_in_pieces_is_whole_at_its_end_alone(held, sizes, ascii_only):
    """So its pieces are one call, though each names another."""
    written = json.dumps(held, ensure_ascii=ascii_only)
    told, at = list[dict[str, Any]](), 0
    while at < len(written):
        size = sizes[len(told) % len(sizes)]
        told.append({"index": 0, "id": f"c{at}", "name": "" if told else "read", "arguments": written[at : at + size]})
        at += size
    assert [call[2] for call in assemble(told)] == [written]


def test_what_cannot_be_whole_is_not_read_again():
    tally = Tally()
    assembler = CallAssembler(tally)
    assembler.add({"index": 0, "function": {"name": "read", "arguments": '{"a":"'}})
    for number in range(20_000):
        assembler.add({"index": 0, "id": f"c{number}", "function": {"arguments": '}"}'}})
    assert [len(call[2]) for call in assembler.calls()] == [9, 3 * 19_999]
    tally.add(REREAD, REREAD.limit - 100)


def test_an_event_of_many_fragments_is_refused_before_they_are_taken():
    answer = ChatAnswer(WireNames(), "chat http://a", lambda _name: None)
    told = [{"index": 0, "function": {"name": "read", "arguments": "{}"}}] * (EVENT_FRAGMENTS.limit + 1)
    with pytest.raises(Exceeded, match="512 fragments of tool calls in one event"):
        answer.take({"choices": [{"delta": {"tool_calls": told}}]})
