"""What the engines send, byte for byte, in the shapes that the servers' own documentation gives."""

import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.model_server import ModelServer
from demo.script import Script, Step
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.openai.responses import ResponsesEngine
from gateway_svc.engines.wire.encoding import (
    MALFORMED_CHARACTERS,
    history_arguments,
    history_arguments_text,
    parse_arguments,
)
from gateway_svc.engines.wire.history import Reader, fit
from gateway_svc.messages import AssistantMessage, Message, Native, SystemMessage, ToolMessage, UserMessage
from gateway_svc.tools.arguments import ArgumentsError, parse_object
from recording.calls import ToolCall
from service_kit.bounds import ARGUMENT_VALUES, check_json
from tests.engines.asking import READ, ask, engine_for

OLLAMA = OllamaEngine("http://127.0.0.1:1", "m")
OPENAI = OpenAIEngine("https://api.openai.com/v1", "m")
RESPONSES = ResponsesEngine("https://api.openai.com/v1", "m")
CALL = ToolCall("ours", "Ab1Cd2Ef3", "read", '{"path": "a.txt"}')
CONVERSATION: list[Message] = [
    SystemMessage("Be kind."),
    UserMessage("What is in a.txt?"),
    AssistantMessage("I look.", "The user wants a file.", (CALL,), Native("ollama http://127.0.0.1:1", "m", ())),
    ToolMessage("Ab1Cd2Ef3", "read", "forty-two"),
    AssistantMessage("It says forty-two.", "Now I know."),
]
MALFORMED = ['{"path": ', "", "[1]", "null", '"text"', "NaN", '{"a": NaN}', "[" * 100_000, '{"a": 1} {"b": 2}']


def test_ollama_messages_are_those_of_its_documentation():
    assert [json.loads(OLLAMA.encode_message(message).data) for message in CONVERSATION] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "What is in a.txt?"},
        {
            "role": "assistant",
            "content": "I look.",
            "thinking": "The user wants a file.",
            "tool_calls": [{"id": "Ab1Cd2Ef3", "function": {"name": "read", "arguments": {"path": "a.txt"}}}],
        },
        {"role": "tool", "tool_call_id": "Ab1Cd2Ef3", "tool_name": "read", "content": "forty-two"},
        {"role": "assistant", "content": "It says forty-two."},
    ]


def test_openai_messages_are_those_of_its_documentation():
    assert [json.loads(OPENAI.encode_message(message).data) for message in CONVERSATION] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "What is in a.txt?"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                {"id": "Ab1Cd2Ef3", "type": "function", "function": {"name": "read", "arguments": '{"path": "a.txt"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "Ab1Cd2Ef3", "content": "forty-two"},
        {"role": "assistant", "content": "It says forty-two."},
    ]


def test_messages_of_openai_s_responses_are_those_of_its_documentation():
    """Each part of an answer is an item of its own; what a model thought cannot be told in words of ours."""
    encoded = b",".join(RESPONSES.encode_message(message).data for message in CONVERSATION)
    assert json.loads(b"[" + encoded + b"]") == [
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be kind."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is in a.txt?"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "Ab1Cd2Ef3", "name": "read", "arguments": '{"path": "a.txt"}'},
        {"type": "function_call_output", "call_id": "Ab1Cd2Ef3", "output": "forty-two"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It says forty-two."}]},
    ]


def test_tools_of_openai_s_responses_are_flat_and_not_strict():
    assert json.loads(RESPONSES.encode_tools([READ])) == [
        {
            "type": "function",
            "name": "read",
            "description": "Reads a file.",
            "parameters": READ.parameters,
            "strict": False,
        }
    ]


def test_thoughts_go_back_with_calls_to_who_had_them_and_to_nobody_else():
    """DeepSeek and Moonshot refuse calls without reasoning_content; Groq refuses that name, and takes another."""
    for url, name in [
        ("https://api.deepseek.com", "reasoning_content"),
        ("https://api.groq.com/openai/v1", "reasoning"),
    ]:
        engine = OpenAIEngine(url, "m")
        own, other = (
            AssistantMessage(thinking="hm", tool_calls=(CALL,), native=Native(f"chat {url}", model, ()))
            for model in ("m", "another")
        )
        sent = json.loads(engine.encode_message(own).data)
        assert sent[name] == "hm"
        assert sent["content"] is None
        fitted = fit([engine.encode_message(other)], Reader(f"chat {url}", "m"))
        assert b"hm" not in fitted[0]


def test_both_send_tools_in_the_same_shape():
    for engine in (OLLAMA, OPENAI):
        function = {"name": "read", "description": "Reads a file.", "parameters": READ.parameters}
        assert json.loads(engine.encode_tools([READ])) == [{"type": "function", "function": function}]


@pytest.mark.parametrize("name", ["ollama", "openai", "responses", "anthropic"])
@pytest.mark.parametrize("arguments", MALFORMED)
async def test_malformed_arguments_go_back_in_a_form_that_strict_servers_take(name, arguments):
    """The scripted server checks like Ollama and llama.cpp; the model sees what it wrote, or how it began."""
    async with ModelServer(Script(steps=(Step(text="first"), Step(text="second")))) as server:
        call = ToolCall("ours", "Ab1Cd2Ef3", "read", arguments)
        result_told = ToolMessage("Ab1Cd2Ef3", "read", "malformed")
        asked = AssistantMessage(tool_calls=(call,))
        _, result = await ask(engine_for(server, name), UserMessage("go"), asked, result_told)
        request = server.requests[0].json
    if name == "anthropic":
        sent = request["messages"][1]["content"][0]["input"]
    elif name == "responses":
        sent = request["input"][1]["arguments"]
    else:
        sent = request["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert result.message.text == "second"
    whole = {"malformed_arguments": arguments}
    begun = {"malformed_arguments": arguments[:MALFORMED_CHARACTERS], "characters": len(arguments)}
    expected = whole if len(arguments) <= MALFORMED_CHARACTERS else begun
    assert (sent if isinstance(sent, dict) else json.loads(sent)) == expected


async def test_a_name_that_openai_refuses_goes_back_as_one_that_it_takes():
    for written, sent in [
        ("functions.read", "functions__read"),
        ("a b", "a_b"),
        ("", "unnamed"),
        ("x" * 80, f"{'x' * 55}_{sha256(b'x' * 80).hexdigest()[:8]}"),
        ("read", "read"),
    ]:
        message = json.loads(
            OPENAI.encode_message(AssistantMessage(tool_calls=(ToolCall("i", "c", written, "{}"),))).data
        )
        assert message["tool_calls"][0]["function"]["name"] == sent


@pytest.mark.parametrize("name", ["ollama", "openai", "responses", "anthropic"])
async def test_a_request_is_made_of_the_encoded_messages_as_they_are(name):
    """Encoding a conversation again for every step would make its cost quadratic."""
    async with ModelServer(Script(steps=(Step(text="ok"),))) as server:
        engine = engine_for(server, name)
        messages: list[Any] = [
            engine.encode_message(UserMessage(f"message {number} é\u2028\U0001f642")) for number in range(3)
        ]
        tools = engine.encode_tools([READ])
        async for _ in engine.step("m", messages, tools):
            pass
        await engine.aclose()
        body = server.requests[0].body
    field = b'"input":[' if name == "responses" else b'"messages":['
    field += b'{"role":"user","content":[' if name == "anthropic" else b""
    assert field + b",".join(message.data for message in messages) + b"]" in body
    assert body.endswith(b',"tools":' + tools + b"}")


async def test_ollama_is_told_the_size_of_the_context_and_to_drop_nothing_in_silence():
    async with ModelServer(Script(steps=(Step(text="ok"),))) as server:
        await ask(OllamaEngine(server.ollama_url, "m", num_ctx=4096))
        await ask(OllamaEngine(server.ollama_url, "m", think="high"), tools=[READ])
        first, second = (request.json for request in server.requests)
    message = {"role": "user", "content": "hello"}
    limits = {"truncate": False, "stream": True}
    assert first == {"model": "scripted", "options": {"num_ctx": 4096}, "messages": [message], **limits}
    assert second["think"] == "high"
    assert second["tools"][0]["function"]["name"] == "read"


async def test_openai_is_asked_for_usage_and_for_nothing_that_servers_may_not_know():
    async with ModelServer(Script(steps=(Step(text="ok"),), api_key="sk-right")) as server:
        await ask(OpenAIEngine(server.openai_url + "/", "m", api_key="sk-right"))
        request = server.requests[0]
    message = {"role": "user", "content": "hello"}
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer sk-right"
    assert request.json == {
        "model": "scripted",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [message],
    }


async def test_no_key_means_no_authorization_and_a_password_in_the_url_means_basic(caplog):
    caplog.set_level("INFO")
    async with ModelServer(Script(steps=(Step(text="ok"),))) as server:
        await ask(OpenAIEngine(server.openai_url, "m"))
        await ask(OllamaEngine(server.ollama_url.replace("://", "://user:secret@"), "m"))
        plain, basic = (request.headers for request in server.requests)
    assert "authorization" not in plain
    assert basic["authorization"] == "Basic dXNlcjpzZWNyZXQ="
    assert "/api/chat" in caplog.text, "the HTTP library logs where it asks"
    assert "secret" not in caplog.text


@given(st.text(st.characters(codec=None, categories=["Cs", "Lu", "Cc", "So"])))
def test_any_text_can_be_sent(text):
    """Lone surrogates come from file names and from models; UTF-8 has no place for them."""
    for engine in (OLLAMA, OPENAI):
        sent = json.loads(engine.encode_message(UserMessage(text)).data)["content"]
        assert sent == text.encode("utf-8", "replace").decode()


@pytest.mark.long
@given(
    st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False))
)
def test_arguments_that_are_an_object_are_taken_as_they_are(arguments):
    text = json.dumps(arguments)
    assert parse_arguments(text) == arguments
    message = AssistantMessage(tool_calls=(ToolCall("i", "c", "read", text),))
    assert json.loads(OPENAI.encode_message(message).data)["tool_calls"][0]["function"]["arguments"] == text


def test_arguments_of_too_many_values_are_read_by_nobody() -> None:
    """Neither for the tool nor to go back to the server, though an event may hold as many."""
    fields = json.dumps({f"f{number}": 1 for number in range(ARGUMENT_VALUES.limit)})
    check_json(fields)
    assert parse_arguments(fields) is None
    told = {"malformed_arguments": fields[:MALFORMED_CHARACTERS], "characters": len(fields)}
    assert json.loads(history_arguments_text(fields)) == history_arguments(fields) == told
    with pytest.raises(ArgumentsError, match="more than 25,000 values in the arguments of one call"):
        parse_object(fields)
