"""OpenAI's Responses API: streams written by hand after its reference, and conversations with a strict server."""

import json
from typing import Any

import pytest

from demo.model_server import ModelServer
from demo.script import Call, Script, Step, Tokens
from gateway_svc.conversations.messages import encode, from_line, to_line
from gateway_svc.engines import StepResult
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.openai.responses import ResponsesEngine
from gateway_svc.errors import EngineProtocolError, EngineRateLimited, EngineRejected
from gateway_svc.messages import AssistantMessage, Message, Native, ToolMessage, UserMessage
from recording.calls import Usage
from tests.engines.asking import QUICK, READ, ask, ask_again, ask_responses, events, response

USAGE = {
    "input_tokens": 120,
    "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 0},
    "output_tokens": 40,
    "output_tokens_details": {"reasoning_tokens": 16},
    "total_tokens": 160,
}
REASONING = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "A file."}],
    "encrypted_content": "gAAA",
    "content": None,
    "status": "completed",
}
CALL = {"id": "fc_1", "type": "function_call", "call_id": "call_A", "name": "read", "arguments": '{"path":"a"}'}


def said(text: str, **more: object) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part], **more}


def event(kind: str, **fields: object) -> dict[str, Any]:
    return {"type": f"response.{kind}", "sequence_number": 1, **fields}


def delta(text: str, kind: str = "output_text") -> dict[str, Any]:
    return event(f"{kind}.delta", item_id="msg_1", output_index=1, content_index=0, delta=text)


def done(item: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return event("output_item.done", output_index=index, item=item)


def ended(kind: str = "completed", **fields: object) -> dict[str, Any]:
    whole = {"id": "resp_1", "object": "response", "status": kind, "model": "served", "usage": USAGE, "error": None}
    return event(kind, response=whole | fields)


CUT = {"reason": "max_output_tokens"}


def items_back(result: StepResult) -> tuple[str, ...]:
    assert result.message.native is not None
    return result.message.native.items


def calls(result: StepResult) -> list[tuple[str, str, str]]:
    return [(call.provider_call_id, call.name, call.arguments) for call in result.message.tool_calls]


async def test_openai():
    """Text from its deltas, calls and thoughts from the items that are done, tokens from the end; the rest is known
    twice, or unknown, and passed over."""
    pieces, result = await ask_responses(
        events(
            event("created", response={"status": "in_progress", "model": "served", "error": None, "usage": None}),
            event("in_progress", response={}),
            event("output_item.added", output_index=0, item={**REASONING, "encrypted_content": None}),
            event("reasoning_summary_part.added", part={}),
            event("reasoning_summary_text.delta", delta="A file."),
            done(REASONING),
            event("output_item.added", output_index=1, item=said("")),
            event("content_part.added", part={"type": "output_text", "text": ""}),
            delta("Let me "),
            delta("look."),
            event("output_text.annotation.added", annotation={}),
            event("output_text.done", text="Let me look."),
            event("content_part.done", part={"type": "output_text", "text": "Let me look."}),
            done(said("Let me look."), 1),
            event("function_call_arguments.delta", delta='{"pa', item_id="fc_1"),
            event("function_call_arguments.done", arguments='{"path":"a"}'),
            done(CALL, 2),
            event("a_kind_of_tomorrow", delta=7),
            ended(output=[REASONING, said("Let me look."), CALL]),
            done=False,
        )
    )
    assert pieces == ["Let me ", "look."]
    assert calls(result) == [("call_A", "read", '{"path":"a"}')]
    assert (result.message.thinking, result.model, result.finish) == ("A file.", "served", "stop")
    assert result.usage == Usage(120, 40, 64, 16)
    native = result.message.native
    assert native is not None
    assert [json.loads(item) for item in native.items] == [
        {"id": "rs_1", "type": "reasoning", "summary": REASONING["summary"], "encrypted_content": "gAAA"},
        said("Let me look."),
        CALL,
    ]


async def test_llama_cpp_numbers_no_items():
    def without(item: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in item.items() if name not in ("output_index", "sequence_number")}

    text, again = said("Hello"), {**CALL, "call_id": "call_B"}
    pieces, result = await ask_responses(
        events(*map(without, [delta("Hel"), delta("lo"), done(text), done(CALL), done(again), ended(output=[])]))
    )
    assert pieces == ["Hel", "lo"]
    assert [call[0] for call in calls(result)] == ["call_A", "call_B"]
    assert items_back(result) == (), "text and calls say all of it"


async def test_items_that_only_the_end_tells_are_taken():
    pieces, result = await ask_responses(events(ended(output=[said("Hello"), CALL]), done=False))
    assert (pieces, len(calls(result))) == (["Hello"], 1)


async def test_a_call_that_only_the_end_tells_is_taken_although_a_message_was_told_before():
    call = {"type": "function_call", "call_id": "a", "name": "read", "arguments": "{}"}
    second = {**call, "call_id": "b"}
    pieces, result = await ask_responses(
        events(delta("Look."), done(said("Look.")), done(call), ended(output=[said("Look."), call, second]))
    )
    assert (pieces, result.message.text) == (["Look."], "Look.")
    assert calls(result) == [("a", "read", "{}"), ("b", "read", "{}")]


async def test_an_answer_in_one_piece_is_taken_from_a_server_that_does_not_stream():
    body = json.dumps(ended(output=[said("Hello"), CALL])["response"])
    pieces, result = await ask_responses(response(body, "application/json"))
    assert (pieces, len(calls(result)), result.usage.input_tokens) == (["Hello"], 1, 120)


async def test_a_refusal_is_an_answer():
    part = {"type": "refusal", "refusal": "I cannot."}
    pieces, result = await ask_responses(
        events(delta("I ", "refusal"), delta("cannot.", "refusal"), done(said("", content=[part])), ended())
    )
    assert pieces == ["I ", "cannot."]
    assert result.message.text == "I cannot."


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter")],
)
async def test_why_an_answer_is_incomplete_is_told(reason, finish):
    details = {"reason": reason}
    _, result = await ask_responses(
        events(delta("Hal"), done(said("Hal")), ended("incomplete", incomplete_details=details))
    )
    assert (result.finish, result.message.text, result.usage.output_tokens) == (finish, "Hal", 40)


async def test_a_thought_that_nothing_follows_does_not_go_back():
    """OpenAI refuses it: "provided without its required following item"."""
    _, result = await ask_responses(events(done(REASONING), ended("incomplete", incomplete_details=CUT)))
    assert (items_back(result), result.message.thinking) == ((), "A file.")


@pytest.mark.parametrize(
    ("code", "kind", "match"),
    [
        ("rate_limit_exceeded", EngineRateLimited, "status 429 and says: slow"),
        ("server_error", EngineProtocolError, "status 500 and says: slow"),
        ("invalid_prompt", EngineRejected, "status 400 and says: slow"),
        ("another", EngineProtocolError, "broke off its answer and says: slow"),
    ],
)
@pytest.mark.parametrize("told", ["failed", "error", "nested"])
async def test_a_response_that_fails_is_an_error_by_its_code(code, kind, match, told):
    error = {"code": code, "message": "slow"}
    last = {
        "failed": ended("failed", error=error),
        "error": {"type": "error", "param": None, "sequence_number": 3, **error},
        "nested": {"type": "error", "error": error},
    }[told]
    with pytest.raises(kind, match=match):
        await ask_responses(events(delta("Hal"), last))


async def test_a_failure_without_a_reason_is_one_too():
    with pytest.raises(EngineProtocolError, match="the response failed"):
        await ask_responses(events(delta("Hal"), ended("failed")))


async def test_a_stream_without_an_end_is_broken():
    with pytest.raises(EngineProtocolError, match="ended before the answer was complete"):
        await ask_responses(events(delta("Hal"), done(said("Hal")), done=False))


SCRIPT = Script(
    steps=(
        Step(
            text="I look.",
            thinking="The user wants a file.",
            tool_calls=(Call(name="read", arguments={"path": "a"}), Call(name="read", arguments={"path": "b"})),
            tokens=Tokens(input=100, output=20, cached=60, reasoning=5),
        ),
        Step(text="Done.", thinking="Now I know."),
    )
)


async def take(engine: Any, history: list[Message], model: str = "scripted") -> AssistantMessage:
    """One step; its answer, and a result for each of its calls, are added to the history."""
    message = (await ask_again(engine, *history, tools=[READ], model=model))[1].message
    history += [message, *(ToolMessage(call.provider_call_id, call.name, "x") for call in message.tool_calls)]
    return message


def kinds(server: ModelServer, request: int = -1) -> list[str]:
    return [item.get("role") or item["type"] for item in server.requests[request].json["input"]]


async def test_it_asks_for_nothing_to_be_kept_and_for_thoughts_that_it_can_send_back():
    async with ModelServer(SCRIPT) as server:
        await ask(ResponsesEngine(server.openai_url + "/", "m", api_key="sk-right"))
        request = server.requests[0]
    assert request.path == "/v1/responses"
    assert request.headers["authorization"] == "Bearer sk-right"
    assert request.json == {
        "model": "scripted",
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}],
    }


async def test_thoughts_go_back_in_order_and_after_a_restart():
    """The server refuses a call or an answer without the thought that led to it, and a thought that was changed."""
    async with ModelServer(SCRIPT) as server:
        engine = ResponsesEngine(server.openai_url, "m", patience=QUICK)
        history: list[Message] = [UserMessage("go")]
        await take(engine, history)
        assert (await take(engine, history)).text == "Done."
        await engine.aclose()

        read = [from_line(json.loads(encode(to_line(message)))) for message in history]
        assert read == history

        engine = ResponsesEngine(server.openai_url, "m", patience=QUICK)
        await take(engine, [*read, UserMessage("more")])
        await engine.aclose()
        told = ["user", "reasoning", "assistant", "function_call", "function_call"]
        told += ["function_call_output", "function_call_output", "reasoning", "assistant", "user"]
        assert kinds(server) == told
        assert len(server.requests) == 3


async def test_another_model_and_another_server_are_told_the_text_and_the_calls():
    async with ModelServer(SCRIPT) as server, ModelServer(SCRIPT) as other:
        history: list[Message] = [UserMessage("go")]
        engine = ResponsesEngine(server.openai_url, "m", patience=QUICK)
        await take(engine, history)
        plain = ["user", "assistant", "function_call", "function_call", *["function_call_output"] * 2]
        await take(engine, list(history), model="another")
        assert kinds(server) == plain
        await engine.aclose()
        engine = ResponsesEngine(other.openai_url, "m", patience=QUICK)
        await take(engine, list(history))
        assert kinds(other) == plain
        await engine.aclose()
        for stranger in (
            OpenAIEngine(server.openai_url, "m", patience=QUICK),
            OllamaEngine(server.ollama_url, "m", patience=QUICK),
        ):
            assert (await take(stranger, list(history))).text == "Done."
            assert "encrypted_content" not in server.requests[-1].body.decode()
            await stranger.aclose()


async def test_thoughts_that_the_server_cannot_read_any_more_are_left_out():
    """As after the account's key has changed: the session goes on, with one request more."""
    async with ModelServer(SCRIPT) as server:
        history: list[Message] = [UserMessage("go")]
        engine = ResponsesEngine(server.openai_url, "m", patience=QUICK)
        first = await take(engine, history)
        assert first.native is not None
        items = [json.loads(item) for item in first.native.items]
        items[0]["encrypted_content"] = "gAAAother"
        spoilt = Native(first.native.origin, first.native.model, tuple(map(json.dumps, items)))
        history[1] = AssistantMessage(first.text, first.thinking, first.tool_calls, spoilt)
        assert (await take(engine, history)).text == "Done."
        await engine.aclose()
        assert [("reasoning" in kinds(server, at)) for at in (1, 2)] == [True, False]


async def test_a_model_that_does_not_think_is_not_asked_for_thoughts_again():
    script = SCRIPT.model_copy(update={"capabilities": frozenset({"completion", "tools"})})
    async with ModelServer(script) as server:
        engine = ResponsesEngine(server.openai_url, "m", patience=QUICK)
        history: list[Message] = [UserMessage("go")]
        await take(engine, history)
        await take(engine, history)
        await engine.aclose()
        assert ["include" in request.json for request in server.requests] == [True, False, False]


async def test_an_answer_that_says_nothing_goes_back_as_one_that_servers_take():
    script = Script(steps=(Step(finish="length"),))
    async with ModelServer(script) as server:
        engine = ResponsesEngine(server.openai_url, "m", patience=QUICK)
        history: list[Message] = [UserMessage("go")]
        assert (await take(engine, history)).text == ""
        await take(engine, [*history, UserMessage("more")])
        await engine.aclose()
        assert server.requests[-1].json["input"][1]["content"][0]["text"] == "(no answer)"
