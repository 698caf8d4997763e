"""The scripted model server, asked with a plain HTTP client: its shapes are those of the real servers' documents."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from typing import Any

import httpx2
import pytest

from demo.model_server import ModelServer
from demo.script import Call, Page, Refusal, Script, Step, Tokens
from tests.support.ports import own_port

USER = {"role": "user", "content": "hello"}
STEP = Step(text="Hi there", thinking="Hm", tool_calls=(Call(name="read", arguments={"path": "é"}),))


async def post(server: ModelServer, path: str, body: Any, **more: Any) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=30, verify=False) as client:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await client.post(server.url + path, content=content, **more)


async def chat(server: ModelServer, path: str, *messages: object, **more: object) -> httpx2.Response:
    return await post(server, path, {"model": "scripted", "messages": messages or [USER], **more})


def payloads(response: httpx2.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_ollama_streams_unless_told_not_to():
    async with ModelServer(Script(steps=(STEP,))) as server:
        streamed = await chat(server, "/api/chat")
        whole = await chat(server, "/api/chat", stream=False)
    assert streamed.headers["content-type"] == "application/x-ndjson"
    *pieces, call, last = payloads(streamed)
    assert [piece["message"] for piece in pieces] == [
        {"role": "assistant", "content": "", "thinking": "Hm"},
        {"role": "assistant", "content": "Hi"},
        {"role": "assistant", "content": " there"},
    ]
    assert {piece["done"] for piece in [*pieces, call]} == {False}
    made = call["message"]["tool_calls"][0]
    assert made["function"] == {"index": 0, "name": "read", "arguments": {"path": "é"}}
    assert made["id"].startswith("call_")
    assert (last["done"], last["done_reason"], last["model"]) == (True, "stop", "scripted")
    assert last["prompt_eval_count"] > 0
    assert last["eval_count"] > 3
    assert whole.json()["message"]["content"] == "Hi there"
    assert whole.json()["message"]["tool_calls"][0]["function"]["name"] == "read"


async def test_openai_streams_only_when_told_to_and_tells_usage_only_when_asked():
    async with ModelServer(Script(steps=(STEP.model_copy(update={"argument_chars": 4}),))) as server:
        streamed = await chat(server, "/v1/chat/completions", stream=True, stream_options={"include_usage": True})
        unasked = await chat(server, "/v1/chat/completions", stream=True)
        whole = await chat(server, "/v1/chat/completions")
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *chunks, finish, usage, done = payloads(streamed)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[:4] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Hm"},
        {"content": "Hi"},
        {"content": " there"},
    ]
    fragments = [delta["tool_calls"][0] for delta in deltas[4:]]
    assert fragments[0]["id"].startswith("call_")
    assert all(set(fragment) == {"index", "function"} for fragment in fragments[1:])
    assert max(len(fragment["function"]["arguments"]) for fragment in fragments) == 4
    assert json.loads("".join(fragment["function"]["arguments"] for fragment in fragments)) == {"path": "é"}
    assert finish["choices"][0]["finish_reason"] == "tool_calls"
    assert (usage["choices"], usage["usage"]["completion_tokens_details"]) == ([], {"reasoning_tokens": 1})
    assert done == "[DONE]"
    assert all("usage" not in chunk for chunk in payloads(unasked)[:-1])
    assert whole.json()["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"path": "é"}'
    assert whole.json()["usage"]["total_tokens"] > 0


async def test_tokens_and_ids_are_what_the_script_says():
    calls = (Call(name="a", id="same"), Call(name="b", id="same"), Call(name="c", id=""))
    step = Step(tool_calls=calls, tokens=Tokens(input=7, output=5, cached=3, reasoning=2))
    async with ModelServer(Script(steps=(step,))) as server:
        openai = (await chat(server, "/v1/chat/completions")).json()
        ollama = (await chat(server, "/api/chat", stream=False)).json()
    assert openai["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    assert [call.get("id") for call in openai["choices"][0]["message"]["tool_calls"]] == ["same", "same", ""]
    assert [call.get("id") for call in ollama["message"]["tool_calls"]] == ["same", "same", None]
    assert (ollama["prompt_eval_count"], ollama["eval_count"]) == (7, 5)


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "no JSON"),
        ([], 400, "no JSON object"),
        ({}, 400, "model is required"),
        ({"model": "x"}, 404, "model 'x' not found"),
        ({"model": "scripted", "messages": [{"role": "user", "content": []}]}, 400, "messages.content of type string"),
        ({"model": "scripted", "messages": [{"role": "robot"}]}, 400, "invalid role"),
        ({"model": "scripted", "messages": ["hello"]}, 400, "right shape"),
        ({"model": "scripted", "messages": [USER], "tools": [{}]}, 400, "does not support tools"),
        ({"model": "scripted", "messages": [USER], "think": True}, 400, "does not support thinking"),
        (
            {
                "model": "scripted",
                "messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}],
            },
            400,
            "cannot unmarshal string into Go struct field ChatRequest.messages.tool_calls.function.arguments",
        ),
        ({"model": "scripted", "messages": [USER, {"role": "assistant", "content": ""}]}, 400, "no step 2"),
    ],
)
async def test_ollama_refuses_what_the_real_one_refuses(body, status, told):
    script = Script(steps=(Step(),), models=("scripted",), capabilities=frozenset({"completion"}))
    async with ModelServer(script) as server:
        response = await post(server, "/api/chat", body)
    assert response.status_code == status
    assert told in response.json()["error"]


def call(call_id: str, arguments: object = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": arguments}}


def asked(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": calls}


def told(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "x"}


@pytest.mark.parametrize(
    ("messages", "status", "words"),
    [
        ([], 400, "too short - 'messages'"),
        ([{"role": "user", "content": None}], 400, "expected a string, got null"),
        ([USER, asked(call("a"), call("b")), told("a")], 400, "did not have response messages: b"),
        ([USER, asked(call("a")), USER], 400, "must be followed by tool messages responding to each 'tool_call_id'"),
        ([USER, told("a")], 400, "must be a response to a preceeding message with 'tool_calls'"),
        ([USER, asked(call("a")), told("a"), told("a")], 400, "must be a response to a preceeding message"),
        ([USER, asked(call("a"), call("a")), told("a")], 400, "Duplicate value for 'tool_call_id' of 'a'"),
        ([USER, asked(call("a", {})), told("a")], 400, "expected a string, but got an object instead"),
        ([USER, asked(call("a", '{"p":')), told("a")], 500, "Failed to parse tool call arguments as JSON"),
        ([USER, {"role": "assistant", "tool_calls": [{}]}], 400, "right shape"),
    ],
)
async def test_openai_refuses_what_the_strictest_servers_refuse(messages, status, words):
    async with ModelServer(Script(steps=(Step(), Step()))) as server:
        response = await post(server, "/v1/chat/completions", {"model": "scripted", "messages": messages})
    assert response.status_code == status
    assert words in response.json()["error"]["message"]
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


async def test_openai_knows_keys_models_and_empty_tools():
    async with ModelServer(Script(steps=(Step(),), models=("scripted",), api_key="sk-a")) as server:
        path, right = "/v1/chat/completions", {"authorization": "Bearer sk-a"}
        wrong = await post(server, path, {}, headers={"authorization": "Bearer sk-b"})
        unknown = await post(server, path, {"model": "x"}, headers=right)
        empty = await post(server, path, {"model": "scripted", "messages": [USER], "tools": []}, headers=right)
        good = await post(server, path, {"model": "scripted", "messages": [USER]}, headers=right)
    assert [reply.status_code for reply in (wrong, unknown, empty, good)] == [401, 404, 400, 200]
    assert wrong.json()["error"]["code"] == "invalid_api_key"
    assert unknown.json()["error"]["code"] == "model_not_found"


async def test_a_refusal_has_its_headers_and_body_and_ends_after_its_times():
    script = Script(
        steps=(Step(text="ok", refuse=Refusal(status=429, headers={"Retry-After": "2"}, body="own", times=2)),)
    )
    async with ModelServer(script) as server:
        replies = [await chat(server, "/api/chat") for _ in range(3)]
    assert [reply.status_code for reply in replies] == [429, 429, 200]
    assert (replies[0].text, replies[0].headers["retry-after"]) == ("own", "2")


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
async def test_unchecked_requests_are_answered_alike(path):
    messages = [USER, asked(call("a")), told("a")]
    script = Script(steps=(Step(text="first"), Step(text="second")))
    async with ModelServer(script) as server:
        checked = await post(server, path, {"model": "m", "messages": [{**message} for message in messages[:1]]})
        server.script = script.model_copy(update={"check": False})
        unchecked = await post(server, path, {"model": "m", "messages": messages[:1]})
        second = await post(server, path, {"model": "m", "messages": messages})
    assert checked.headers["content-type"] == unchecked.headers["content-type"]
    assert "first" in unchecked.text
    assert "second" in second.text


async def test_models_and_capabilities_are_listed():
    async with ModelServer(Script(models=("a", "b"))) as server, httpx2.AsyncClient(verify=False) as client:
        tags = (await client.get(f"{server.ollama_url}/api/tags")).json()
        models = (await client.get(f"{server.openai_url}/models")).json()
        shown = (await client.post(f"{server.ollama_url}/api/show", json={"model": "a"})).json()
    assert [model["name"] for model in tags["models"]] == ["a", "b"]
    assert [model["id"] for model in models["data"]] == ["a", "b"]
    assert "tools" in shown["capabilities"]


async def test_pages_are_served_as_the_script_has_them():
    pages = {
        "/pages/a.html": Page(body="<h1>ä</h1>"),
        "/pages/b.bin": Page(body=b"\x00\xff", content_type="application/octet-stream", status=203),
        "/pages/c": Page(status=302, headers={"Location": "/pages/a.html"}),
    }
    async with ModelServer(Script(pages=pages)) as server, httpx2.AsyncClient(verify=False) as client:
        plain, binary, moved, missing = [
            await client.get(f"{server.url}/pages/{name}") for name in ("a.html?q=1", "b.bin", "c", "d")
        ]
    assert (plain.status_code, plain.text, plain.headers["content-type"]) == (
        200,
        "<h1>ä</h1>",
        "text/html; charset=utf-8",
    )
    assert (binary.status_code, binary.content) == (203, b"\x00\xff")
    assert (moved.status_code, moved.headers["location"]) == (302, "/pages/a.html")
    assert missing.status_code == 404


async def test_requests_but_probes_are_kept_up_to_a_bound_and_tell_when_their_client_left():
    script = Script(steps=(Step(delay_ms=60_000),))
    async with ModelServer(script, keep_requests=2) as server:
        async with httpx2.AsyncClient(verify=False) as client:
            for number in range(3):
                await client.get(f"{server.url}/{number}")
            for probed in (server.ollama_url, server.openai_url):
                await client.get(probed)
        assert [request.path for request in server.requests] == ["/1", "/2"]
        asking = asyncio.create_task(chat(server, "/api/chat"))
        await server.received(4)
        assert server.requests[-1].json["messages"] == [USER]
        assert not server.requests[-1].gone.is_set()
        asking.cancel()
        async with asyncio.timeout(30):
            await server.requests[-1].gone.wait()


@pytest.mark.long
async def test_any_number_of_conversations_go_through_at_the_same_time():
    script = Script(steps=tuple(Step(text=f"step {number}", chunk_delay_ms=1) for number in range(3)))
    async with ModelServer(script) as server:

        async def converse(name: int) -> list[str]:
            messages: list[dict[str, str]] = [{"role": "user", "content": str(name)}]
            for _ in range(3):
                reply = await chat(server, "/api/chat", *messages)
                text = "".join(payload["message"]["content"] for payload in payloads(reply))
                messages.append({"role": "assistant", "content": text})
            return [message["content"] for message in messages[1:]]

        said = await asyncio.gather(*(converse(number) for number in range(20)))
    assert said == [["step 0", "step 1", "step 2"]] * 20


async def test_it_stops_though_clients_are_waiting_and_takes_its_port_again():
    with own_port() as port:
        server = ModelServer(Script(steps=(Step(delay_ms=60_000),)), port=port)
        async with server:
            asking = asyncio.create_task(chat(server, "/api/chat"))
            await server.received(1)
        with pytest.raises((httpx2.NetworkError, httpx2.ProtocolError)):
            await asking
        server.script = Script(steps=(Step(text="ok"),))
        async with server:
            assert server.url == f"http://127.0.0.1:{port}"
            assert (await chat(server, "/api/chat")).status_code == 200


async def test_what_is_no_http_does_not_harm_it():
    async with ModelServer(Script(steps=(Step(text="ok"),))) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        writer.write(b"\x16\x03\x01 this is TLS\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
        assert (await chat(server, "/api/chat")).status_code == 200


@pytest.mark.long
def test_the_command_prints_its_address_and_serves_a_script(tmp_path):
    (tmp_path / "a.toml").write_text('[[steps]]\ntext = "from a file"\n', "utf-8")
    command = [sys.executable, "-m", "demo.model_server", "--script", str(tmp_path / "a.toml"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            reply = httpx2.post(f"{url}/api/chat", json={"model": "m", "messages": [USER], "stream": False})
        finally:
            process.terminate()
    assert reply.json()["message"]["content"] == "from a file"


@pytest.mark.long
def test_the_command_tells_what_is_wrong_with_a_script(tmp_path):
    (tmp_path / "a.toml").write_text("steps = 1\n", "utf-8")
    command = [sys.executable, "-m", "demo.model_server", "--script"]
    for path, words in [(tmp_path / "a.toml", "steps"), (tmp_path / "missing.toml", "No such file")]:
        ended = subprocess.run([*command, str(path)], capture_output=True, encoding="utf-8", check=False)
        assert ended.returncode == 2
        assert words in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("rounds", range(5))
async def test_no_connection_outlives_it_however_late_it_came(rounds):
    async with ModelServer(Script()) as server:
        client = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
        for _ in range(rounds):
            await asyncio.sleep(0)
    with client, contextlib.suppress(ConnectionResetError):
        client.settimeout(30)
        assert client.recv(1) == b""


TOOL = {"functionDeclarations": [{"name": "read"}]}
GEMINI = "/v1beta/models/gemini-2.5-flash"


async def test_gemini_streams_by_its_path_and_counts_thoughts_apart():
    async with ModelServer(Script(steps=(STEP,))) as server:
        body = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}], "tools": [TOOL]}
        streamed = await post(server, f"{GEMINI}:streamGenerateContent?alt=sse", body)
        whole = await post(server, f"{GEMINI}:generateContent", body)
    *pieces, last = payloads(streamed)
    parts = [piece["candidates"][0]["content"]["parts"][0] for piece in pieces]
    assert [part for part in parts if "functionCall" not in part] == [
        {"text": "Hm", "thought": True},
        {"text": "Hi"},
        {"text": " there"},
    ]
    assert [part["functionCall"]["args"] for part in parts if "functionCall" in part] == [{"path": "é"}]
    assert last["candidates"][0]["finishReason"] == "STOP"
    usage = last["usageMetadata"]
    assert usage["thoughtsTokenCount"] == 1
    assert usage["totalTokenCount"] == sum(
        usage[name] for name in ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    )
    assert whole.json()["modelVersion"] == "gemini-2.5-flash"


async def test_gemini_wants_an_answer_to_each_call():
    called = {"role": "model", "parts": [{"functionCall": {"name": "read", "args": {}}}] * 2}
    answered = {"role": "user", "parts": [{"functionResponse": {"name": "read", "response": {}}}]}
    async with ModelServer(Script(steps=(STEP, STEP))) as server:
        refused = await post(server, f"{GEMINI}:generateContent", {"contents": [called, answered]})
    assert refused.status_code == 400
    assert refused.json()["error"]["status"] == "INVALID_ARGUMENT"


async def test_an_agents_side_request_and_its_own_reminders_do_not_move_the_script():
    script = Script(steps=(STEP, Step(text="Done")), one_prompt=True, aside=Step(text="A title"))
    answer = {"role": "assistant", "content": "Hi there"}
    tools = [{"type": "function", "function": {"name": "read", "parameters": {"type": "object"}}}]
    async with ModelServer(script) as server:
        aside = await chat(server, "/v1/chat/completions")
        second = await chat(server, "/v1/chat/completions", USER, answer, USER, tools=tools)
    assert aside.json()["choices"][0]["message"]["content"] == "A title"
    assert second.json()["choices"][0]["message"]["content"] == "Done"
