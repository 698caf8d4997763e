"""What servers refuse, in their own words: known for what it is, told to the caller, and survived by the session."""

import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_svc.engines.anthropic.messages import AnthropicEngine
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.openai.responses import ResponsesEngine
from gateway_svc.engines.wire.failures import class_within, error_class, error_in, error_in_body
from gateway_svc.engines.wire.patience import Patience
from gateway_svc.errors import (
    CallNotParsed,
    ContentRefused,
    ContextExceeded,
    EngineBrokeOff,
    EngineError,
    GatewayError,
)
from gateway_svc.loop.refusals import ContextSizes
from gateway_svc.messages import AssistantMessage, ToolDefinition, ToolMessage, UserMessage
from recording.calls import ToolCall
from tests.engines import stranger
from tests.engines.asking import READ
from tests.engines.stranger import FILES, Reply, Request, Stranger, load_case, refusal
from tests.engines.test_strangers import DONE, QUICK, RESPONSE_DONE, play

S = "SENTINEL"


def body_of(error: Any) -> bytes:
    return error.encode() if isinstance(error, str) else json.dumps(error).encode()


REASONS: dict[str, Any] = {
    "vLLM": {"object": "error", "message": f"1 validation error: input_value='{S}'", "code": 400},
    "FastAPI": {"detail": [{"loc": ["body", "messages", 0], "msg": f"not {S}"}]},
    "FastAPI in words": {"detail": f"{S} nope"},
    "Gemini": [{"error": {"code": 400, "message": f"{S} invalid", "status": "INVALID_ARGUMENT"}}],
    "Gemini's fields": [
        {"error": {"code": 400, "message": "bad", "details": [{"fieldViolations": [{"description": S}]}]}}
    ],
    "Anthropic": {"type": "error", "error": {"type": "invalid_request_error", "message": S}},
    "Cloudflare": {"success": False, "errors": [{"code": 5006, "message": S}]},
    "Bedrock": {"message": f"Malformed {S}", "__type": "ValidationException"},
    "a sentence": {"error": S},
    "errors by kind": {"errors": {"messages": [S]}},
    "RFC 7807": {"type": "about:blank", "title": "Bad", "status": 400, "detail": S},
    "RFC 7807, the title alone": {"title": f"Bad {S}", "status": 400},
    "Zhipu": {"code": "1210", "msg": S},
    "Baidu": {"error_code": 336003, "error_msg": S},
    "a reason": {"error": {"reason": S, "code": 1}},
    "OAuth": {"error": "invalid_request", "error_description": S},
    "OpenRouter": {"error": {"message": "Provider returned error", "metadata": {"raw": {"error": {"message": S}}}}},
    "OpenRouter, in text": {"error": {"message": "x", "metadata": {"raw": json.dumps({"detail": S})}}},
    "OpenRouter's moderation": {"error": {"code": 403, "message": "x", "metadata": {"reasons": [S]}}},
    "Ollama": {"error": f"raw='{S}'"},
    "plain text": f"{S} plain",
}


@pytest.mark.parametrize("name", REASONS)
def test_the_reason_is_told_wherever_it_stands(name: str):
    assert S in error_in_body(body_of(REASONS[name]), "").text


def told(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


TOO_LONG: dict[str, tuple[int, Any, int | None]] = {
    "llama.cpp": (400, told("the request exceeds the available context size. try", n_ctx=8192), 8192),
    "LM Studio": (400, {"error": "Trying to keep … the model is loaded with context length of only 4096 tokens"}, 4096),
    "OpenAI": (400, told("Input tokens exceed the configured limit of 272000 tokens. Your messages"), 272_000),
    "vLLM": (400, told("The decoder prompt (length 9000) is longer than the maximum model length of 8192."), 8192),
    "vLLM of old": (400, told("max_tokens must be at least 1, got -400."), None),
    "TensorRT-LLM": (400, told("Prompt length (9000) exceeds maximum input length (8192)."), 8192),
    "text-generation-inference": (422, {"error": "`inputs` must have less than 4095 tokens. Given: 5000"}, None),
    "a proxy without a word": (413, "", None),
    "Anthropic": (400, told("prompt is too long: 210000 tokens > 200000 maximum"), 200_000),
    "Gemini": (
        400,
        [told("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).")],
        1_048_576,
    ),
    "Groq": (
        413,
        told("Request too large for model `m`: Limit 6000, Requested 10000", code="rate_limit_exceeded"),
        6000,
    ),
    "OpenAI's tokens a minute": (
        429,
        told(
            "Request too large for gpt-4.1-2025-04-14 (for limit gpt-4.1) on tokens per min (TPM): Limit 30000, "
            "Requested 37313. The input or output tokens must be reduced in order to run successfully.",
            type="tokens",
            code="rate_limit_exceeded",
        ),
        30_000,
    ),
    "Mistral": (
        400,
        {"message": "Prompt contains 40000 tokens, too large for model with 32768 maximum context length"},
        32_768,
    ),
    "Together": (422, told("`inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs`"), 8193),
    "DeepSeek": (400, told("This model's maximum context length is 65536 tokens. However, you requested 7"), 65_536),
    "xAI": (
        400,
        {"code": "x", "error": "This model's maximum prompt length is 131072 but the request contains"},
        131_072,
    ),
    "Cerebras": (
        400,
        {"message": "Please reduce the length of the messages. Current length is 9 while limit is 8192"},
        8192,
    ),
    "Bedrock": (400, {"message": "Input is too long for requested model."}, None),
    "Alibaba": (400, told("<400> InvalidParameter: Range of input length should be [1, 98304]"), 98_304),
    "Zhipu": (400, told("Prompt exceeds max length", code="1261"), None),
    "Ollama": (400, {"error": "input length exceeds the context length"}, None),
    "MiniMax": (400, told("invalid params, context window exceeds limit (2013)"), None),
    "Copilot": (400, told("prompt token count of 140000 exceeds the limit of 128000"), 128_000),
    "Vertex": (400, told("the input token count is 40000 but model only supports up to 32768."), 32_768),
    "Moonshot": (400, told("Invalid request: Your request exceeded model token limit: 131072"), 131_072),
}


@pytest.mark.parametrize("name", TOO_LONG)
def test_a_refusal_for_the_length_is_known_and_teaches_the_size(name: str):
    status, body, size = TOO_LONG[name]
    reported = error_in_body(body_of(body), "")
    assert error_class(status, reported) is ContextExceeded
    taught = ContextSizes(lambda _: None).refused("m", reported.text, 30_000)
    assert size in (None, taught)


REFUSED_CONTENT: dict[str, tuple[int, Any]] = {
    "Azure": (400, told("The response was filtered due to the prompt …", code="content_filter")),
    "OpenAI": (400, told("Invalid prompt: your prompt was flagged as potentially violating our usage policy.")),
    "Anthropic": (400, told("Output blocked by content filtering policy")),
    "DeepSeek": (400, told("Content Exists Risk")),
    "Alibaba": (400, told("<400> InternalError.Algo.DataInspectionFailed: Input data may contain inappropriate")),
    "Alibaba's code": (400, told("Output data may be inappropriate.", code="data_inspection_failed")),
    "Zhipu": (400, told("系统检测到输入或生成内容可能包含不安全或敏感内容", code="1301")),
    "Z.ai": (400, told("System detected potentially unsafe or sensitive content in input.", code="1301")),
    "OpenRouter": (403, told("input flagged", metadata={"reasons": ["violence"]})),
    "Gemini": (400, [told("Request contains prohibited content (PROHIBITED_CONTENT)")]),
    "xAI": (403, {"error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}),
    "Moonshot": (400, told("The request was rejected because it was considered high risk", type="content_filter")),
    "Bedrock": (400, {"message": "The content was blocked by guardrail"}),
    "Mistral": (403, {"message": "Content flagged by moderation", "type": "moderation_error"}),
}


@pytest.mark.parametrize("name", REFUSED_CONTENT)
def test_a_refusal_for_the_content_is_known(name: str):
    status, body = REFUSED_CONTENT[name]
    assert error_class(status, error_in_body(body_of(body), "")) is ContentRefused


SLIPS: dict[str, tuple[int, Any]] = {
    "Groq": (400, told("Failed to call a function. Please adjust your prompt.", code="tool_use_failed")),
    "Groq's parser": (400, told("Parsing failed. The model generated output that could not be parsed.")),
    "Ollama": (500, {"error": f"error parsing tool call: raw='{S}', err=invalid character"}),
    "llama.cpp": (500, told(f"Failed to parse tool call arguments as JSON: {S}")),
    "llama.cpp's parser": (500, told(f"Failed to parse input at pos 395: <tool_call>{S}</tool_call>")),
    "llama.cpp's newer one": (
        500,
        told("The model produced output that does not match the expected peg-native format"),
    ),
    "vLLM with gpt-oss": (500, told(f"unexpected tokens remaining in message header: Some('{S}')", code=500)),
    "SGLang with gpt-oss": (500, told("Unexpected token 12606 while expecting start token 200006")),
    "vLLM": (400, {"object": "error", "message": "Error in extracting tool call from response."}),
    "Together": (400, told("invalid tool call generated")),
}


@pytest.mark.parametrize("name", SLIPS)
def test_a_call_that_a_server_could_not_parse_is_the_model_s_slip(name: str):
    status, body = SLIPS[name]
    assert error_class(status, error_in_body(body_of(body), "")) is CallNotParsed


WITHIN: dict[str, tuple[type[EngineError], Any]] = {
    "LM Studio": (ContextExceeded, told("Trying to keep the first 5000 tokens … context length of only 4096 tokens")),
    "a code in capitals": (ContextExceeded, told("Too much", code="CONTEXT_LENGTH_EXCEEDED")),
    "Venice": (ContextExceeded, {"error_type": "context_length_exceeded", "error_message": "no"}),
    "MiniMax": (ContextExceeded, {"base_resp": {"status_code": 2013, "status_msg": "context window exceeds limit"}}),
    "Ollama": (ContextExceeded, {"error": "input length exceeds the context length"}),
    "Alibaba": (ContentRefused, told("Output data may be inappropriate.", code="data_inspection_failed")),
    "llama.cpp while it writes": (ContextExceeded, told("context shift is disabled", type="server_error")),
    "Ollama's parser": (CallNotParsed, {"error": "error parsing tool call: raw='{'"}),
    "Ollama with Qwen": (CallNotParsed, {"error": "XML syntax error on line 7: expected element name after <"}),
    "Ollama with Qwen 3.6": (CallNotParsed, {"error": "expected element type <function> but have <parameter>"}),
    "Ollama with GLM": (CallNotParsed, {"error": "failed to parse XML: EOF"}),
    "vLLM": (EngineBrokeOff, told("EngineCore encountered an issue. See stack trace (above).")),
}
"""Errors in a stream that began with status 200. None has a status of its own."""


@pytest.mark.parametrize("name", WITHIN)
def test_a_refusal_within_a_stream_is_known_by_its_words(name: str):
    kind, body = WITHIN[name]
    reported = error_in(body)
    assert reported is not None
    assert class_within(reported) is kind


async def test_a_turn_goes_on_shorter_when_its_length_is_refused_within_a_stream(tmp_path: Path):
    refused = Reply(f"event: error\ndata: {json.dumps(WITHIN['LM Studio'][1])}\n\n".encode())
    call, done = load_case(FILES / "37-context-refused.txt").replies
    played = await play(tmp_path, "37-context-refused.txt", [call, refused, done], check="leak")
    assert [turn for turn in played.turns if isinstance(turn, GatewayError)] == []
    assert len(played.server.requests) == len(played.turns) + 2, "for the call, and for the refusal"
    assert [cost.error for cost in played.costs if cost.error] == ["context_exceeded"]


# What one server demands and another refuses is learned from its refusal, and remembered.


def _null(request: Request) -> Reply | None:
    empty = any(message["content"] is None for message in request["messages"])
    return refusal("Invalid value for 'content': expected a string, got null.") if empty else None


def _null_in_pydantic(request: Request) -> Reply | None:
    loc = next(
        (["body", "messages", at, "content"] for at, m in enumerate(request["messages"]) if not m["content"]), None
    )
    error = {"detail": [{"loc": loc, "msg": "Input should be a valid string", "input": None}]}
    empty = any(message["content"] is None for message in request["messages"])
    return Reply(json.dumps(error).encode(), 422, "application/json") if empty else None


def _null_within_a_stream(request: Request) -> Reply | None:
    error = {"error": "Invalid 'content': 'content' field must be a string or an array of objects."}
    empty = any(message["content"] is None for message in request["messages"])
    return Reply(f"event: error\ndata: {json.dumps(error)}\n\n".encode()) if empty else None


def _thoughts_in_each_answer(request: Request) -> Reply | None:
    error = {"error": {"code": "400", "message": "Param Incorrect", "type": ""}}
    error["error"]["param"] = "The reasoning_content in the thinking mode must be passed back to the API."
    bare = any(not message.get("reasoning_content") for message in stranger.assistants(request))
    return Reply(json.dumps(error).encode(), 400, "application/json") if bare else None


def _no_extras(request: Request) -> Reply | None:
    odd = any("provider_specific_fields" in call for call in stranger.calls(request))
    return refusal("property 'provider_specific_fields' is unsupported") if odd else None


def _options_500(request: Request) -> Reply | None:
    said = "Unrecognized request argument supplied: stream_options"
    return refusal(said, 500) if "stream_options" in request else None


def _short_descriptions(request: Request) -> Reply | None:
    long = any(len(tool.get("function", tool)["description"]) > 1024 for tool in request.get("tools", ()))
    said = "Invalid 'tools[0].function.description': string too long. Expected a string with maximum length 1024, but"
    return refusal(f"{said} got a string with length 2000 instead.") if long else None


def _thoughts_demanded(request: Request) -> Reply | None:
    for message in request["messages"]:
        kinds = {block["type"] for block in message["content"]} if isinstance(message["content"], list) else set()
        if "tool_use" in kinds and "thinking" not in kinds:
            return refusal("The `content[].thinking` in the thinking mode must be passed back to the API.")
    return None


def _signatures_demanded(request: Request) -> Reply | None:
    blocks = [block for message in request["messages"] for block in message["content"] if isinstance(block, dict)]
    unsigned = any(block["type"] == "thinking" and not block["signature"] for block in blocks)
    return refusal("messages.1.content.0.thinking.signature: Field required") if unsigned else None


SAID = Reply(
    b'data: {"type": "message_start", "message": {"usage": {"input_tokens": 3}}}\n\n'
    b'data: {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "done"}}\n\n'
    b'data: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}\n\n'
)
LESSONS: dict[str, tuple[type[Any], Callable[[Request], Reply | None], Reply]] = {
    "an empty content": (OpenAIEngine, _null, DONE),
    "an empty content, as pydantic says it": (OpenAIEngine, _null_in_pydantic, DONE),
    "an empty content, as LM Studio says it": (OpenAIEngine, _null_within_a_stream, DONE),
    "MiMo's thoughts, in each answer": (OpenAIEngine, _thoughts_in_each_answer, DONE),
    "stream_options, as a fault of its own": (OpenAIEngine, _options_500, DONE),
    "descriptions": (OpenAIEngine, _short_descriptions, DONE),
    "descriptions in Responses": (ResponsesEngine, _short_descriptions, RESPONSE_DONE),
    "DeepSeek's thoughts": (AnthropicEngine, _thoughts_demanded, SAID),
}
ASKED = AssistantMessage("", "", (ToolCall("row", "c.1", "read", "{}"),))
SAID_SO = AssistantMessage("so")
HISTORY: list[Any] = [UserMessage("go"), ASKED, ToolMessage("c.1", "read", "x"), SAID_SO, UserMessage("on")]
LONG = ToolDefinition("long", "d" * 2000, READ.parameters)


@pytest.mark.parametrize("name", LESSONS)
async def test_what_a_server_refuses_is_learned_once(name: str):
    kind, check, reply = LESSONS[name]
    async with AsyncExitStack() as stack:
        server: Stranger = await stack.enter_async_context(stranger.stranger(reply, check=check))
        engine = kind(server.url, "m", patience=QUICK)
        tools = engine.encode_tools([READ, LONG])
        for _ in range(2):
            encoded = [engine.encode_message(message) for message in HISTORY]
            events = [event async for event in engine.step("m", encoded, tools)]
            assert events[-1].message.text == "done"
            refused = server.refused
            encoded = [engine.encode_message(message) for message in HISTORY]
            assert [event async for event in engine.step("m", encoded, tools)]
            assert server.refused == refused, "what was learned is remembered"
        await engine.aclose()


THOUGHT = [
    {"type": "message_start", "message": {"usage": {"input_tokens": 3}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "read"}},
    {"type": "content_block_delta", "index": 1, "delta": {"partial_json": '{"path": "a"}'}},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}},
]


@pytest.mark.parametrize(("check", "refused"), [(_thoughts_demanded, 0), (_signatures_demanded, 1)])
async def test_thoughts_without_a_signature_go_back_unless_they_are_refused(check, refused: int):
    """DeepSeek's and others' servers do not sign them, and want them back."""
    thought = Reply("".join(f"data: {json.dumps(event)}\n\n" for event in THOUGHT).encode())
    async with stranger.stranger(thought, SAID, check=check) as server:
        engine = AnthropicEngine(server.url, "m", patience=QUICK)
        events = [event async for event in engine.step("m", [engine.encode_message(UserMessage("go"))], b"[]")]
        first: Any = events[-1]
        history = [UserMessage("go"), first.message, ToolMessage("t", "read", "x")]
        encoded = [engine.encode_message(message) for message in history]
        assert [event async for event in engine.step("m", encoded, b"[]")]
        await engine.aclose()
    assert server.refused == refused


@pytest.mark.long
@pytest.mark.parametrize("name", [*REASONS, *TOO_LONG, *REFUSED_CONTENT])
async def test_a_session_outlives_each_refusal_and_its_words_are_on_no_row(tmp_path: Path, name: str):
    status, body = (400, REASONS[name]) if name in REASONS else (TOO_LONG.get(name) or REFUSED_CONTENT[name])[:2]
    refused = Reply(body_of(body), status, "application/json")
    played = await play(tmp_path, "30-gemini-thought-signature.sse", [refused, DONE], check="leak")
    assert played.text == "done"
    assert S not in str(played.logger.rows)


OPENAI = [name for name, (kind, *_) in LESSONS.items() if kind is OpenAIEngine]


@pytest.mark.long
@given(st.sets(st.sampled_from([*OPENAI, "extras", "nothing"]), min_size=1))
@settings(max_examples=20, deadline=None)
async def test_whatever_a_server_refuses_of_what_is_known_it_is_asked_in_its_way_and_once_for_each(names: set[str]):
    """Several at once too, one refusal for each, and none in the next step."""
    checks = [LESSONS[name][1] for name in names if name in LESSONS] + [_no_extras] * ("extras" in names)

    def check(request: Request) -> Reply | None:
        return next(filter(None, (refuses(request) for refuses in checks)), None)

    async with stranger.stranger(DONE, check=check) as server:
        engine: Any = OpenAIEngine(server.url, "m", patience=Patience(attempts=1))
        tools = engine.encode_tools([READ, LONG])
        for _ in range(2):
            encoded = [engine.encode_message(message) for message in HISTORY]
            events = [event async for event in engine.step("m", encoded, tools)]
            assert events[-1].message.text == "done"
        assert server.refused <= len(checks)
        await engine.aclose()
