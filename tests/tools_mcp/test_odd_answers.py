"""Answers in the odd forms that servers send: what can be read is told, an error is the server's, and the rest goes on.

One server plays them all: each call says what it answers.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from onrecord.common.v1 import common_pb2

from gateway_svc.tools import ToolError
from gateway_svc.tools.mcp.client import Client
from gateway_svc.tools.mcp.results import tool_result
from gateway_svc.tools.mcp.settings import ServerSettings
from gateway_svc.tools.mcp.wire import Refusal, read_json
from tests.tools_mcp import played

SUCCEEDED, FAILED = common_pb2.OUTCOME_SUCCEEDED, common_pb2.OUTCOME_FAILED
FINE = '{"content":[{"type":"text","text":"fine"}]}'
GOOD = f'{{"jsonrpc":"2.0","id":ID,"result":{FINE}}}'
OTHER = '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}'
PROGRESS = '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}'


def result(value: Any) -> str:
    return f'{{"jsonrpc":"2.0","id":ID,"result":{json.dumps(value)}}}'


def plays(mode: str) -> ServerSettings:
    return ServerSettings(command=sys.executable, args=(str(Path(played.__file__)), mode), timeout_seconds=20)


TOLD: dict[str, tuple[str, str]] = {
    "an id as a float": (GOOD.replace("ID", "ID.0"), "fine"),
    "an answer that repeats its method": (GOOD.replace('"id"', '"method":"tools/call","id"'), "fine"),
    "an error of null": (GOOD[:-1] + ',"error":null}', "fine"),
    "no version": (GOOD.replace('"jsonrpc":"2.0",', ""), "fine"),
    "the version as a number": (GOOD.replace('"2.0"', "2.0"), "fine"),
    "a batch whose first part is none": (f"[5,null,{GOOD}]", "fine"),
    "a batch whose last part is none": (f'[{GOOD},"x",[]]', "fine"),
    "a batch with notifications": (f"[{OTHER},{PROGRESS},{GOOD}]", "fine"),
    "progress that nobody asked for": (f"{PROGRESS}\n{GOOD}", "fine"),
    "an answer to nobody": (f"{GOOD.replace('ID', '4711')}\n{GOOD}", "fine"),
    "an answer to a request of another's": (GOOD.replace("ID", '"abc"') + "\n" + GOOD, "fine"),
    "the same answer twice": (f"{GOOD}\n{GOOD}", "fine"),
    "a request with its own id": (f'{{"jsonrpc":"2.0","id":ID,"method":"elicitation/create"}}\n{GOOD}', "fine"),
    "cancelled by the server": (
        f'{{"method":"notifications/cancelled","params":{{"requestId":"ID"}}}}\n{GOOD}',
        "fine",
    ),
    "an empty line and a BOM": (f"\n\ufeff\n{GOOD}", "fine"),
    "carriage returns": (f"{GOOD}\r", "fine"),
    "one block, not in a list": (result({"content": {"type": "text", "text": "fine"}}), "fine"),
    "content that is text": (result({"content": "fine"}), "fine"),
    "texts among blocks": (result({"content": ["fine", {"type": "text", "text": "too"}]}), "fine\ntoo"),
    "content of null, and structure": (result({"content": None, "structuredContent": {"a": 1}}), '{"a": 1}'),
    "no content": (result({}), "(no output)"),
    "a link and structure": (
        result({"content": [{"type": "resource_link", "uri": "file:///a", "name": "a"}], "structuredContent": [1]}),
        "[resource file:///a]\n[1]",
    ),
    "a resource with both": (
        result({"content": [{"type": "resource", "resource": {"uri": "u", "text": "t", "blob": "AAAA"}}]}),
        "t",
    ),
    "binary of an odd type": (
        result({"content": [{"type": "audio", "data": "AAAA", "mimeType": "audio/x\n[evil]"}]}),
        "[audio of type unknown, 3 bytes]",
    ),
}


async def test_what_can_be_read_of_an_odd_answer_is_told(open_desk):
    desk = await open_desk(t=plays("told"))
    for name, (line, text) in TOLD.items():
        answer = await desk.run("t.go", json.dumps({"x": line}))
        assert (answer.text, answer.outcome, answer.error) == (text, SUCCEEDED, None), name


REFUSED: dict[str, tuple[str, str]] = {
    "a result of null beside the error": (
        '{"id":ID,"result":null,"error":{"code":-32000,"message":"the disk is full"}}',
        "the disk is full",
    ),
    "a result beside the error": (GOOD[:-1] + ',"error":{"code":1,"message":"half done"}}', "half done"),
    "an error with its method": ('{"id":ID,"method":"tools/call","error":{"code":1,"message":"no"}}', "no"),
    "an error that is text": ('{"id":ID,"error":"boom"}', '"boom"'),
    "an error of many fields": ('{"id":ID,"error":{"code":-32001.0,"message":"m","data":{"a":[1]}}}', "m"),
    "isError with structure": (result({"content": [], "isError": True, "structuredContent": {"why": "x"}}), "why"),
    "isError as text": (result({"content": "bad", "isError": "true"}), "bad"),
    "isError as a number": (result({"content": "bad", "isError": 1}), "bad"),
    "more is wanted": (result({"content": "half", "resultType": "input_required"}), "half"),
    "the method alone": ('{"id":ID,"result":[]}', "cannot be read"),
    "nothing but the id": ('{"id":ID}', "cannot be read"),
    "neither": ('{"id":ID,"error":null}', "cannot be read"),
}


async def test_what_is_no_good_answer_ends_its_call_at_once_and_the_server_goes_on(open_desk):
    desk = await open_desk(t=plays("told"))
    client = desk.servers._servers["t"]._client
    for name, (line, text) in REFUSED.items():
        answer = await desk.run("t.go", json.dumps({"x": line}))
        assert answer.outcome == FAILED, name
        assert text in answer.text, name
        assert desk.servers._servers["t"]._client is client, name


async def test_a_server_without_tools_is_connected_and_not_started_again_and_again(open_desk):
    desk = await open_desk(t=plays("no-tools"))
    assert [(state.is_up, state.offered) for state in desk.servers.states()] == [(True, 0)]


async def test_a_list_whose_second_page_is_refused_keeps_its_first(open_desk):
    desk = await open_desk(t=plays("pages"))
    assert desk.names() == ["t.go"]
    assert desk.servers.left_out() == {"t.#2": "the rest of the list cannot be read"}


async def test_a_list_whose_pages_do_not_go_on_is_asked_for_its_next_one_once(open_desk):
    desk = await open_desk(t=plays("one-page"))
    assert desk.names() == ["t.go"]
    assert desk.servers.left_out() == {"t.#2": "name is listed twice"}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@given(
    code=st.sampled_from([-32000, -32001, -32700, 408, 0]) | st.integers() | ANYTHING,
    message=ANYTHING,
    more=st.dictionaries(st.sampled_from(["data", "id", "code2"]), ANYTHING, max_size=2),
    beside=st.sampled_from([{}, {"result": None}, {"result": {}}, {"method": "tools/call"}, {"jsonrpc": 1}]),
)
async def test_whatever_code_an_error_has_it_is_the_server_s_and_says_nothing_of_the_connection(
    code, message, more, beside
):
    client = Client("t", lambda _: None)
    loop = asyncio.get_running_loop()
    client._asked = {7: loop.create_future(), 8: loop.create_future()}
    line = {"id": 7, "error": {"code": code, "message": message, **more}, **beside}
    assert await client.take(json.dumps(line).encode())
    assert isinstance(client._asked[7].exception(), Refusal)
    assert not client._asked[8].done()
    assert not client.lost.is_set()


@given(st.dictionaries(st.sampled_from(["content", "structuredContent", "isError", "resultType"]), ANYTHING))
def test_an_answer_is_good_only_if_it_says_nothing_else(answer):
    try:
        told = tool_result(answer)
    except ToolError:
        return
    assert told.outcome == SUCCEEDED
    assert answer.get("isError") in (None, False)


async def test_an_answer_however_deep_ends_its_call(open_desk):
    desk = await open_desk(t=plays("told"))
    for depth in (50, 200, 500, 900, 990, 2000):
        deep = '{"a":' * depth + "1" + "}" * depth
        for line in (f'{{"id":ID,"result":{{"structuredContent":{deep}}}}}', f'{{"id":ID,"error":{deep}}}'):
            answer = await desk.run("t.go", json.dumps({"x": line}))
            assert answer.outcome in (SUCCEEDED, FAILED)
            assert "internal" not in str(answer.error)


async def test_half_a_pair_of_surrogates_costs_one_character():
    message = await read_json(rb'{"id": 1, "result": {"text": "a\ud800b \ud83d\ude00"}}')
    assert message["result"] == {"text": "a?b \N{GRINNING FACE}"}
