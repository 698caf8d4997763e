"""The scripted model server's Responses API refuses what OpenAI's own refuses, so that no wrong request passes here."""

import json
from typing import Any

import httpx2
import pytest

from demo.model_server import ModelServer
from demo.responses_input import encrypted
from demo.script import Call, Script, Step

Item = dict[str, Any]
THOUGHT, REST = "0123456789abcdef", "fedcba9876543210"


def said(role: str, text: object = "x") -> Item:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def call(call_id: str = "c", **more: object) -> Item:
    return {"type": "function_call", "call_id": call_id, "name": "read", "arguments": "{}", **more}


def output(call_id: str = "c", **more: object) -> Item:
    return {"type": "function_call_output", "call_id": call_id, "output": "x", **more}


def thought(**more: object) -> Item:
    item_id = f"rs_{THOUGHT}"
    hidden = encrypted(item_id, "scripted")
    return {"type": "reasoning", "id": item_id, "summary": [], "encrypted_content": hidden, **more}


def tool(**more: object) -> Item:
    return {"type": "function", "name": "read", "parameters": {"type": "object", "properties": {}}, **more}


USER, DEEP = said("user"), {"id": f"fc_{THOUGHT}{REST}"}
STEP = Step(text="Hi there", thinking="Hm", tool_calls=(Call(name="read", arguments={"path": "é"}),))


async def post(script: Script, **body: object) -> httpx2.Response:
    async with ModelServer(script) as server, httpx2.AsyncClient(timeout=30, verify=False) as client:
        return await client.post(f"{server.openai_url}/responses", json={"model": "scripted", **body})


@pytest.mark.parametrize(
    ("items", "status", "told"),
    [
        ([], 400, "Missing required parameter: 'input'"),
        (7, 400, "expected a string or an array"),
        ([said("robot")], 400, "Invalid value: 'robot'"),
        ([said("user", 7)], 400, "expected a string"),
        ([USER, said("assistant") | {"content": USER["content"]}], 400, "values are: 'output_text' and 'refusal'"),
        ([USER | {"status": None}], 400, "got null"),
        ([USER, {"type": "thing"}], 400, "Invalid value: 'thing'"),
        ([USER, call()], 400, "No tool output found for function call c"),
        ([USER, call(), USER], 400, "No tool output found for function call c"),
        ([USER, output()], 400, "No tool call found for function call output with call_id c"),
        ([USER, call(), output(), output()], 400, "No tool call found"),
        ([USER, call(), call(), output(), output()], 400, "Duplicate function call"),
        ([USER, call(arguments={}), output()], 400, "expected a string"),
        ([USER, call(name="a.b"), output()], 400, "does not match pattern"),
        ([USER, call(), output(output=7)], 400, "expected a string or an array"),
        ([USER, call(**DEEP), output()], 400, f"without its required 'reasoning' item: 'rs_{THOUGHT}'"),
        ([USER, thought()], 400, "without its required following item"),
        ([USER, thought(), USER], 400, "without its required following item"),
        ([USER, thought(status="completed"), said("assistant")], 400, "Unknown parameter"),
        ([USER, thought(encrypted_content="gAAA"), said("assistant")], 400, "could not be verified"),
        ([USER, {**thought(), "id": "rs_other"}, said("assistant")], 400, "could not be verified"),
        ([USER, {"type": "reasoning", "id": "rs_1", "summary": []}, call(), output()], 404, "not persisted"),
    ],
)
async def test_input_that_is_wrong_is_refused(items, status, told):
    response = await post(Script(steps=(Step(),) * 3), input=items)
    assert response.status_code == status, response.text
    assert told in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("tools", "told"),
    [
        ([{"type": "function", "function": {"name": "read"}}], "Missing required parameter: 'tools[0].name'"),
        ([tool(name="a.b", strict=False)], "does not match pattern"),
        ([tool(parameters=None)], "expected an object"),
        ([tool()], "Invalid schema"),
        ([tool(type="shell")], "Invalid value: 'shell'"),
    ],
)
async def test_tools_that_are_wrong_are_refused(tools, told):
    response = await post(Script(steps=(Step(),)), input="go", tools=tools)
    assert response.status_code == 400
    assert told in response.json()["error"]["message"]


async def test_other_parts_that_are_wrong_are_refused():
    script = Script(steps=(Step(),), models=("scripted",), capabilities=frozenset({"tools"}), api_key="sk")
    assert (await post(script, input="go")).status_code == 401
    script = script.model_copy(update={"api_key": None})
    assert (await post(script, input="go", model="other")).json()["error"]["code"] == "model_not_found"
    assert "not supported" in (await post(script, input="go", include=["reasoning.encrypted_content"])).text
    assert (await post(script, input="go", previous_response_id="resp_1")).status_code == 400


async def test_a_conversation_that_is_right_is_taken_and_its_answers_counted():
    """Several items are one answer, whose number says which step comes next."""
    script = Script(steps=(STEP, Step(text="second")))
    items = [USER, thought(), said("assistant"), call(**DEEP), call("d"), output("d"), output()]
    response = await post(script, input=items, tools=[tool(strict=False)])
    assert response.json()["output"][0]["content"][0]["text"] == "second"


async def test_a_response_in_one_piece_and_as_a_stream():
    script, wanted = Script(steps=(STEP,)), {"input": "go", "include": ["reasoning.encrypted_content"]}
    whole = (await post(script, **wanted)).json()
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message", "function_call"]
    streamed = await post(script, stream=True, **wanted)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    payloads = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: ")]
    assert [payload["sequence_number"] for payload in payloads] == list(range(len(payloads)))
    deltas = dict.fromkeys(("output_text", "function_call_arguments", "reasoning_summary_text"), "")
    for payload in payloads:
        if payload["type"].endswith(".delta"):
            deltas[payload["type"].split(".")[1]] += payload["delta"]
    assert deltas == {
        "output_text": "Hi there",
        "function_call_arguments": '{"path": "é"}',
        "reasoning_summary_text": "Hm",
    }
    assert payloads[-1]["type"] == "response.completed"
    assert payloads[-1]["response"]["usage"]["total_tokens"] > 0
    assert "encrypted_content" not in (await post(script, input="go")).text
