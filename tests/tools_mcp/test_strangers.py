"""Servers that strangers wrote: one bad part of a list, an answer or a line costs that part, and nothing around it."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onrecord.common.v1 import common_pb2

from gateway_svc.tools import ToolError
from gateway_svc.tools.mcp import results
from gateway_svc.tools.mcp.client import Client
from gateway_svc.tools.mcp.listing import Listing, _take
from gateway_svc.tools.mcp.schemas import Unusable, usable
from gateway_svc.tools.mcp.settings import ServerSettings
from gateway_svc.tools.mcp.wire import Unreadable, messages_of, read_json
from tests.support.values import places, put
from tests.tools_mcp import played

SUCCEEDED, FAILED = common_pb2.OUTCOME_SUCCEEDED, common_pb2.OUTCOME_FAILED


def plays(mode: str, *options: str, **more: Any) -> ServerSettings:
    argv = (str(Path(played.__file__)), mode, *options)
    return ServerSettings(command=sys.executable, args=argv, **{"timeout_seconds": 20, **more})


LEFT_OUT = {
    "noschema": {"t.bad": "no schema"},
    "nan": {"t.bad": "schema is not JSON"},
    "deep": {"t.bad": "schema too deep"},
    "array": {"t.bad": "schema describes no object"},
}


@pytest.mark.parametrize("mode", LEFT_OUT)
async def test_a_tool_that_no_model_can_be_told_of_is_left_out_by_its_name_and_the_others_are_offered(
    open_desk, mode, capsys
):
    desk = await open_desk(t=plays(mode))
    assert "t.go" in desk.names()
    assert "t.bad" not in desk.names()
    assert desk.servers.left_out() == LEFT_OUT[mode]
    assert "t.bad" in capsys.readouterr().out
    assert (await desk.run("t.go")).text == "fine"


MENDED: dict[str, Any] = {
    "badannot": {"type": "object", "properties": {"x": {"type": "string"}}},
    "nullprops": {"type": "object", "properties": {}},
    "required": {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]},
    "elsewhere": {"type": "object", "properties": {"a": {}}},
    "anyof": {
        "type": "object",
        "properties": {"b": {"type": "string"}, "c": {}, "a": {"type": "string"}},
        "required": ["c"],
    },
}


@pytest.mark.parametrize("mode", MENDED)
async def test_a_schema_that_can_be_mended_is(open_desk, mode):
    desk = await open_desk(t=plays(mode))
    (bad,) = [tool for tool in desk.toolbox.definitions() if tool.name == "t.bad"]
    assert bad.parameters == MENDED[mode]
    assert desk.servers.left_out() == {}


async def test_names_that_no_provider_takes_are_left_out_by_their_places(open_desk):
    desk = await open_desk(t=plays("names"))
    assert desk.names() == ["t.go", "t.b/c"]
    assert set(desk.servers.left_out()) == {f"t.#{place}" for place in (2, 3, 4, 5, 6, 7, 9, 10)}


async def test_no_more_tools_are_offered_than_a_provider_takes(open_desk):
    """Of each server the first in turn, and what there is no room for is told."""
    desk = await open_desk(a=plays("many"), b=plays("many"), small=plays("plain"))
    desk.servers.make_room_for(7)
    names = desk.names()
    assert len(names) == 128 - 7
    assert {name.partition(".")[0] for name in names} == {"a", "b", "small"}
    assert len(desk.servers.left_out()) == 201 - len(names)
    assert (await desk.run("b.t99")).outcome == common_pb2.OUTCOME_INVALID_CALL


ANSWERS = {
    "outputs": "did the work: 7",
    "regex": '{"x": "' + "a" * 40 + '!"}',
    "badblock": "important text\n[image of type unknown, 3 bytes]" + "\n[a part of the answer that cannot be read]" * 2,
    "surrogate": "cut emoji ?",
    "badutf8": "caf\ufffd",
    "batch": "fine",
    "text-id": "fine",
    "garbage": "fine",
    "asks": "fine",
    "surrogates": "fine",
    "stateless": "fine",
}


@pytest.mark.long
@pytest.mark.parametrize("mode", ANSWERS)
async def test_what_can_be_read_of_an_answer_is_told(open_desk, mode):
    desk = await open_desk(t=plays(mode))
    result = await desk.run("t.go")
    assert (result.text, result.outcome, result.error) == (ANSWERS[mode], SUCCEEDED, None)


REFUSED = {
    "e32000": "the MCP server t refused the call (other)",
    "e32001": "the MCP server t refused the call (other)",
    "e32602": "the MCP server t refused the call (invalid params)",
    "card": "the MCP server t refused the call (other)",
    "digits": "the MCP server t refused the call (other)",
    "word-code": "the MCP server t refused the call (other)",
    "null-id": "the MCP server t refused the call (internal error)",
    "cut": "the MCP server t gave an answer that cannot be read",
    "cut-late-id": "the MCP server t gave an answer that cannot be read",
    "parts": "the MCP server t gave an answer that cannot be read",
    "no-result": "the MCP server t gave an answer that cannot be read",
}


@pytest.mark.long
@pytest.mark.parametrize("mode", REFUSED)
async def test_a_call_that_fails_ends_at_once_and_costs_neither_the_server_nor_its_other_calls(open_desk, mode):
    """An error's code is the server's, whatever number it has; its words are for the model alone."""
    desk = await open_desk(t=plays(mode))
    client = desk.servers._servers["t"]._client
    waiting = asyncio.create_task(desk.run("t.go", '{"x": "wait"}')) if mode != "null-id" else None
    await asyncio.sleep(0.05)
    result = await desk.run("t.go")
    assert (result.outcome, result.error) == (FAILED, REFUSED[mode])
    if mode in played.ERRORS:
        assert result.text == "Error: no such record"
    assert desk.servers._servers["t"]._client is client
    assert not client.lost.is_set()
    if waiting:
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])


@pytest.mark.long
async def test_a_server_that_tells_of_changes_behind_each_list_is_asked_once_a_second(open_desk, tmp_path):
    lists = tmp_path / "lists"
    lists.touch()
    desk = await open_desk(t=plays("loop", str(lists)))
    started = time.monotonic()
    await desk.until(lambda: len(lists.read_text().split()) >= 3)
    assert time.monotonic() - started > 0.9
    assert (await desk.run("t.go")).text == "fine"


@pytest.mark.long
async def test_a_server_that_is_slow_to_start_gets_more_time_at_each_try(open_desk, monkeypatch):
    """Here 1 s, then 2, then 4, where it takes 3; the limit can be set too."""
    monkeypatch.setattr("gateway_svc.tools.mcp.servers.START_SECONDS", 0.1)
    desk = await open_desk(t=plays("slow", "3", start_seconds=1))
    await desk.until(desk.names, seconds=60)
    assert (await desk.run("t.go")).text == "fine"


async def test_states_of_servers_are_told(open_desk):
    desk = await open_desk(t=plays("noschema"), gone=ServerSettings(command="no-such-program-here"))
    states = {state.name: (state.is_up, state.offered, state.left_out) for state in desk.servers.states()}
    assert states == {"t": (True, 2, 1), "gone": (False, 0, 0)}


# Mutations: any one part of a good list, answer or line may be anything.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


GOOD = {
    "name": "bad",
    "title": "T",
    "description": "d",
    "inputSchema": {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"$ref": "#/$defs/x"}}},
        "required": ["a"],
        "$defs": {"x": {"type": "string", "enum": ["y"]}},
        "additionalProperties": False,
    },
    "outputSchema": {"type": "object"},
    "annotations": {"readOnlyHint": True},
}


@pytest.mark.long
@given(st.sampled_from(places(GOOD)), JSON)
def test_any_change_of_a_listed_tool_costs_at_most_that_tool(place, other):
    listing = Listing()
    for number, entry in enumerate([played.tool("a"), put(GOOD, place, other), played.tool("go")], start=1):
        _take(entry, number, "t", lambda *_: None, listing)  # type: ignore[arg-type]
    assert {"t.a", "t.go"} <= set(listing.tools)
    assert len(listing.tools) + listing.left_out_count == 3
    for tool in listing.tools.values():
        told = json.dumps([tool.name, tool.description, tool.schema], allow_nan=False)
        assert tool.schema["type"] == "object"
        assert not {"anyOf", "oneOf", "allOf", "not", "enum", "$ref"} & set(tool.schema)
        told.encode()


@given(JSON)
def test_a_schema_is_mended_or_refused(schema):
    try:
        mended = usable(schema)
    except Unusable:
        return
    assert usable(mended) == mended
    assert json.loads(json.dumps(mended, allow_nan=False)) == mended


ANSWER = {
    "content": [{"type": "text", "text": "good"}, {"type": "image", "data": "AAAA", "mimeType": "image/png"}],
    "structuredContent": {"a": [1]},
    "isError": False,
}


@given(st.sampled_from(places(ANSWER)[1:]), JSON)
def test_any_change_of_an_answer_still_tells_what_is_beside_it(place, other):
    try:
        result = results.tool_result(put(ANSWER, place, other))
    except ToolError as error:
        assert place == ("isError",)
        result = error.result
    if place[:2] != ("content", 0) and place != ("content",):
        assert "good" in result.text
    if place[:2] != ("content", 1) and place != ("content",):
        assert "[image of type image/png, 3 bytes]" in result.text


LINE = json.dumps({"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": 'a "b" {c}'}]}}).encode()


@pytest.mark.long
@given(st.integers(0, len(LINE) - 1), st.binary(max_size=3), st.integers(0, 3))
async def test_any_change_of_a_line_ends_its_call_or_no_other(at, other, removed):
    """Bytes are removed and others put there: the call of its id ends, or none; never another, or the reader."""
    client = Client("t", lambda _: None)
    loop = asyncio.get_running_loop()
    client._asked = {7: loop.create_future(), 8: loop.create_future()}
    await client.take(LINE[:at] + other.replace(b"\n", b"") + LINE[at + removed :])
    mine, others = client._asked[7], client._asked[8]
    changed_id = LINE.index(b"7") - 8 <= at <= LINE.index(b"7") + 1
    if others.done():
        assert changed_id
        others.exception()
    if mine.done():
        mine.exception()


@given(st.binary(max_size=200))
async def test_reading_a_line_raises_nothing_else(line):
    try:
        for message in messages_of(await read_json(line)):
            assert isinstance(message, dict)
    except Unreadable:
        pass
