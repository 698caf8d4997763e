"""Answers in shapes that servers and proxies of others are known for are read for what they say."""

import json
import re
from typing import Any

import pytest

from gateway_svc.engines import Engine
from gateway_svc.engines.anthropic.messages import AnthropicEngine
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.openai.responses import ResponsesEngine
from gateway_svc.engines.wire.patience import Patience
from gateway_svc.errors import EngineError
from tests.engines.asking import ask, ndjson, raw_server, response

INDENTED = "            hi    "
SAID = ("hi", "hi\ufffd", "hi, it is me", INDENTED)
"""What is said in the answers that are good; any other text is the end of an error."""
ONCE = Patience(attempts=1, read_s=5)
CALL = [("read", '{"path":"a"}')]
USAGE = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
LAST = {"done": True, "done_reason": "stop", "prompt_eval_count": 10, "eval_count": 5}


def chat(delta: object = None, finish: object = None, **more: object) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish, **more}]}


def calls(*fragments: object) -> list[dict[str, Any]]:
    return [chat({"tool_calls": [fragment]}) for fragment in fragments]


def call(arguments: object, **more: object) -> dict[str, Any]:
    return {"index": 0, "id": "c1", "type": "function", "function": {"name": "read", "arguments": arguments}, **more}


def sse(*payloads: object) -> bytes:
    return response("".join(f"data: {p if isinstance(p, str) else json.dumps(p)}\n\n" for p in payloads))


HI, STOP, TOOLS = chat({"content": "hi"}), chat(finish="stop"), chat(finish="tool_calls")
TWICE = json.dumps(CALL[0][1])
"""Arguments that are encoded twice."""


def named(*events: tuple[str, object]) -> bytes:
    """Events that tell their type in a line of their own."""
    return response("".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events))


def fragment(name: str, arguments: str, **more: object) -> dict[str, Any]:
    return {"index": 0, "function": {"name": name, "arguments": arguments}, **more}


FILTER = {"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]}
CHAT: dict[str, tuple[bytes, object]] = {
    "Azure's first and last chunk": (sse(FILTER, HI, STOP, {"choices": [{"content_filter_offsets": {}}]}), "hi"),
    "choices that are null": (sse({"choices": None}, HI, STOP, "[DONE]"), "hi"),
    "an end in capitals": (sse(HI, chat(finish="STOP")), "hi"),
    "an end as Anthropic names it": (sse(HI, chat(finish="end_turn")), "hi"),
    "an end as an object": (sse(HI, chat(finish={"type": "stop", "matched": 1})), "hi"),
    "an end that is the word null until it comes": (sse(chat({"content": "hi"}, "null"), STOP), "hi"),
    "calls that end as Anthropic names it": (sse(*calls(call('{"path":"a"}')), chat(finish="tool_use")), CALL),
    "calls as an object": (sse(chat({"tool_calls": call('{"path":"a"}')}), TOOLS), CALL),
    "an empty object ahead of the arguments": (
        sse(*calls(call("{}"), {"index": 0, "function": {"arguments": '{"path":"a"}'}}), TOOLS),
        CALL,
    ),
    "arguments as an array": (sse(*calls(call(["a"])), TOOLS), [("read", '["a"]')]),
    "arguments encoded twice": (sse(*calls(call(TWICE)), TOOLS), CALL),
    "arguments encoded twice, in pieces": (
        sse(*calls(call(TWICE[:6]), {"index": 0, "function": {"arguments": TWICE[6:]}}), TOOLS),
        CALL,
    ),
    "a name in halves, the second with the arguments": (
        sse(*calls(fragment("re", "", id="c1"), fragment("ad", CALL[0][1])), TOOLS),
        CALL,
    ),
    "a name in halves with an id each": (
        sse(*calls(fragment("re", "", id="c1"), fragment("ad", CALL[0][1], id="c1")), TOOLS),
        CALL,
    ),
    "MiniMax's name in each fragment": (
        sse(*calls(*(fragment("read", piece, id="c1") for piece in ("", '{"path":', '"a"}', ""))), TOOLS),
        CALL,
    ),
    "LM Studio's id for each character": (
        sse(*calls(fragment("read", "", id="0"), *(fragment("", x, id=f"{x}1") for x in CALL[0][1])), TOOLS),
        CALL,
    ),
    "all chunks as one array": (response(json.dumps([HI, STOP]), "application/json"), "hi"),
    "ends of lines of old": (response(f"data: {json.dumps(HI)}\r\rdata: {json.dumps(STOP)}\r\r"), "hi"),
    "lines of JSON, said to be events": (response(f"{json.dumps(HI)}\n{json.dumps(STOP)}\n"), "hi"),
    "rubbish behind the end": (response(f"data: {json.dumps(HI)}\n\ndata: {json.dumps(STOP)}\n\n\0\1<html>"), "hi"),
    "an error behind the end": (sse(HI, STOP, "[DONE]", {"error": {"message": "late"}}), "hi"),
    "a text in an object": (sse(chat({"content": {"text": "hi"}}), STOP), "hi"),
    "thoughts in an object": (sse(chat({"reasoning": {"text": "hm"}}), HI, STOP), "hi"),
    "the older completions' text": (sse({"choices": [{"index": 0, "text": "hi", "finish_reason": None}]}, STOP), "hi"),
    "events without blank lines": (response(f"data: {json.dumps(HI)}\ndata: {json.dumps(STOP)}\ndata: [DONE]\n"), "hi"),
    "pings in words": (sse("ping", "[]", HI, "null", STOP, '"[DONE]"'), "hi"),
    "an error without a name": (sse({"code": 503, "message": "boom"}), "status 503 and says: boom"),
    "an error as FastAPI tells it": (sse(HI, {"detail": "boom"}), "says: boom"),
    "an error of Cloudflare's": (sse({"errors": [{"message": "boom", "code": 5006}], "success": False}), "says: boom"),
    "an error as a field of the event": (response('error: {"message": "boom", "code": 500}\n\n'), "500 and says: boom"),
    "an error of Groq's": (sse(HI, {"choices": [], "x_groq": {"error": "boom"}}, "[DONE]"), "says: boom"),
    "an error with a status in camel case": (sse({"statusCode": 429, "message": "boom"}), "status 429 and says: boom"),
    "an end that is none": (sse(HI, chat(finish="abort")), "for the reason abort"),
    "bytes that are no UTF-8": (sse(HI, STOP).replace(b'"hi"', b'"hi\xff"'), "hi\ufffd"),
    "an answer in one piece, on many lines": (
        response(json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}, indent=1)),
        "hi",
    ),
    "an error on many lines": (response(json.dumps({"error": {"message": "boom"}}, indent=1)), "says: boom"),
    "the whole message behind its pieces": (
        sse(HI, {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}),
        "hi",
    ),
    "arguments that are in the whole message alone": (
        sse(*calls(call("")), {"choices": [{"message": {"tool_calls": [call(CALL[0][1])]}, "finish_reason": "stop"}]}),
        CALL,
    ),
    "an end with a blank": (sse(HI, STOP, "[DONE] "), "hi"),
    "an end with a blank, where more stands behind it": (
        sse(HI, STOP, "[DONE] ", {"error": {"message": "late"}}),
        "hi",
    ),
    "an answer that names tools of nobody": (sse(HI, TOOLS), "called none"),
    "Groq's null for no arguments": (sse(*calls(call("null")), TOOLS), [("read", "{}")]),
    "a call under its former name too": (
        sse(chat({"tool_calls": [call(CALL[0][1])], "function_call": fragment("read", CALL[0][1])["function"]}), TOOLS),
        CALL,
    ),
    "a call without its function, beside a text": (
        sse(HI, chat({"tool_calls": [{"name": "read", "arguments": {"path": "a"}}]}), STOP),
        CALL,
    ),
    "a refusal as a part": (sse(chat({"content": [{"type": "refusal", "refusal": "hi"}]}), STOP), "hi"),
    "Databricks' reasoning as a part": (
        sse(
            chat({"content": [{"type": "reasoning", "summary": [{"text": "hm"}]}, {"type": "text", "text": "hi"}]}),
            STOP,
        ),
        "hi",
    ),
    "reasoning as a part with a text": (sse(chat({"content": [{"type": "reasoning", "text": "hm"}]}), HI, STOP), "hi"),
    "an end of Ollama's": (sse(HI, chat(finish="end")), "hi"),
    "all of the text so far, and all again": (
        sse(
            *(chat({"content": "hi, it is me"[:end], "reasoning": "hmm, so it is"[:end]}) for end in (5, 9, 12, 12)),
            STOP,
        ),
        "hi, it is me",
    ),
    "text that begins as it began": (
        sse(*(chat({"content": text}) for text in ("    ", "        hi", "    ")), STOP),
        INDENTED,
    ),
    "lines wrapped once more, comments too": (
        response(
            "data: : OPENROUTER PROCESSING, PLEASE WAIT\n\n"
            + "".join(f"data: data: {p}\n\n" for p in (json.dumps(HI), json.dumps(STOP), "[DONE]"))
        ),
        "hi",
    ),
    "an error of Venice's": (sse({"error_type": "server_error", "error_message": "boom"}), "500 and says: boom"),
    "an error of MiniMax's": (sse({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "boom"}}), "boom"),
    "no error of MiniMax's": (sse(HI, STOP | {"base_resp": {"status_code": 0, "status_msg": "boom"}}), "hi"),
}
OLLAMA: dict[str, tuple[bytes, object]] = {
    "an end in capitals": (ndjson({"message": {"content": "hi"}}, {**LAST, "done_reason": "STOP"}), "hi"),
    "calls that end as such": (
        ndjson({"message": {"tool_calls": [call({"path": "a"})]}}, {**LAST, "done_reason": "tool_calls"}),
        CALL,
    ),
    "such an end without a call": (
        ndjson({"message": {"content": "hi"}}, {**LAST, "done_reason": "tool_calls"}),
        "for the reason tool_calls",
    ),
    "a call without its function": (
        ndjson({"message": {"tool_calls": [{"name": "read", "arguments": {"path": "a"}}]}}, LAST),
        CALL,
    ),
    "the text of /api/generate": (ndjson({"response": "hi"}, {"response": "", **LAST}), "hi"),
    "arguments encoded": (
        ndjson({"message": {"tool_calls": [{"function": {"name": "read", "arguments": CALL[0][1]}}]}}, LAST),
        CALL,
    ),
    "one array": (response(json.dumps([{"message": {"content": "hi"}}, LAST]), "application/json"), "hi"),
    "one array over lines": (
        response(f"[{json.dumps({'message': {'content': 'hi'}})},\n{json.dumps(LAST)}]", "application/json"),
        "hi",
    ),
    "no arguments": (ndjson({"message": {"tool_calls": [call("")]}}, LAST), [("read", "{}")]),
    "a call again in the last line": (
        ndjson(
            {"message": {"tool_calls": [call({"path": "a"})]}},
            {"message": {"tool_calls": [call({"path": "a"})]}, **LAST},
        ),
        CALL,
    ),
    "counts and no reason": (ndjson({"message": {"content": "hi"}}, {"done": True, "eval_count": 5}), "hi"),
    "a reason and not done": (ndjson({"message": {"content": "hi"}}, {"done_reason": "stop", "eval_count": 5}), "hi"),
    "server-sent events": (sse({"message": {"content": "hi"}}, LAST), "hi"),
}


def block(kind: str, **more: object) -> dict[str, Any]:
    return {"type": f"content_block_{kind}", **more}


START = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 10}}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
TEXT = [
    block("start", index=3, content_block={"type": "text", "text": ""}),
    block("delta", index=3, delta={"text": "hi"}),
]
PIECES = [block("delta", delta={"partial_json": piece}) for piece in ('{"path":', '"a"}')]
USE = {"type": "tool_use", "id": "t", "name": "read", "input": {}}
SEARCH = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
TO_TOOLS = {"type": "message_delta", "delta": {"stop_reason": "TOOL_USE"}, "usage": {"output_tokens": 5}}
ANTHROPIC: dict[str, tuple[bytes, object]] = {
    "a tool that the provider runs itself": (
        sse(START, block("start", index=0, content_block=SEARCH), block("stop", index=0), *TEXT, END),
        "hi",
    ),
    "a tool that the provider runs itself, of a type still to come": (
        sse(
            START,
            block("start", index=0, content_block=SEARCH | {"type": "later_tool_use"}),
            block("stop", index=0),
            *TEXT,
            END,
        ),
        "hi",
    ),
    "types in the events' names": (
        named(
            ("message_start", {"message": {"model": "m", "usage": {"input_tokens": 3}}}),
            ("ping", {}),
            ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
            ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "hi"}}),
            ("content_block_stop", {"index": 0}),
            ("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}}),
            ("message_stop", {}),
        ),
        "hi",
    ),
    "an input encoded twice": (
        sse(START, block("start", content_block=USE), block("delta", delta={"partial_json": TWICE}), TO_TOOLS),
        CALL,
    ),
    "blocks without an index": (
        sse(START, block("start", content_block=USE), *PIECES, block("stop"), TO_TOOLS, {"type": "message_stop"}),
        CALL,
    ),
    "the reason in the last event": (sse(START, *TEXT, {"type": "message_stop", "stop_reason": "end_turn"}), "hi"),
    "an error without a wrapper": (sse(START, {"type": "error", "message": "boom"}), "says: boom"),
}


def item(**more: object) -> dict[str, Any]:
    told = {"type": "function_call", "id": "f", "call_id": "c", "name": "read", "arguments": ""}
    return {"type": "response.output_item.added", "output_index": 0, "item": told | more}


def ended(status: str = "completed", **more: object) -> dict[str, Any]:
    return {"type": "response.completed", "response": {"status": status, **more}}


WHOLE = {"type": "response.function_call_arguments.done", "output_index": 0, "name": "read", "arguments": CALL[0][1]}
PIECE = {"type": "response.function_call_arguments.delta", "delta": CALL[0][1]}
EMPTY = {**item(arguments="{}"), "type": "response.output_item.done"}
THOUGHT = {"type": "response.content_part.done", "output_index": 0, "part": {"type": "reasoning_text", "text": "hm"}}
PART = {"type": "response.content_part.done", "output_index": 1, "part": {"type": "output_text", "text": "hi"}}
RESPONSES: dict[str, tuple[bytes, object]] = {
    "a call whose name comes last": (sse(item(name=""), WHOLE, ended()), CALL),
    "types in the events' names": (
        named(("response.output_text.delta", {"delta": "hi"}), ("response.completed", {"response": {}})),
        "hi",
    ),
    "a call at two places": (
        sse(
            *(
                {
                    "type": "response.output_item.done",
                    "output_index": at,
                    "item": item(arguments=a, id=f"f{at}")["item"],
                }
                for at, a in enumerate((CALL[0][1], '{"path": "a"}'))
            ),
            ended(),
        ),
        CALL,
    ),
    "an empty object in the end": (sse(item(), WHOLE, EMPTY, ended()), CALL),
    "an empty object behind pieces": (sse(item(), {**WHOLE, **PIECE}, EMPTY, ended()), CALL),
    "arguments encoded twice": (sse(item(), {**WHOLE, "arguments": TWICE}, ended()), CALL),
    "a text as a part alone": (sse(THOUGHT, PART, ended()), "hi"),
    "a text beside the output": (sse(ended(output_text="hi")), "hi"),
    "a text that is no list": (sse(ended(output=[{"type": "message", "content": "hi"}])), "hi"),
    "a status in capitals": (sse({"type": "response.output_text.delta", "delta": "hi"}, ended("COMPLETED")), "hi"),
    "an error by its code": (sse({"type": "error", "code": "rate_limit_exceeded", "message": "boom"}), "says: boom"),
}
FORMS = {"chat": CHAT, "ollama": OLLAMA, "anthropic": ANTHROPIC, "responses": RESPONSES}


@pytest.mark.parametrize(
    ("form", "answer", "right"),
    [pytest.param(form, *case, id=f"{form}: {name}") for form, cases in FORMS.items() for name, case in cases.items()],
)
async def test_a_foreign_shape_is_read_for_what_it_says(form: str, answer: bytes, right: object):
    async with raw_server(answer) as server:
        if isinstance(right, str) and right not in SAID:
            with pytest.raises(EngineError, match=f"{re.escape(right)}$"):
                await ask(engine_of(form, server.url), model="m")
            return
        pieces, result = await ask(engine_of(form, server.url), model="m")
    asked = [(call.name, call.arguments) for call in result.message.tool_calls]
    assert (asked or "".join(pieces)) == right
    assert result.finish == "stop"


def engine_of(form: str, url: str) -> Engine:
    match form:
        case "chat":
            return OpenAIEngine(f"{url}/v1", "m", patience=ONCE)
        case "responses":
            return ResponsesEngine(f"{url}/v1", "m", patience=ONCE)
        case "anthropic":
            return AnthropicEngine(url, "m", patience=ONCE)
        case _:
            return OllamaEngine(url, "m", patience=ONCE)
