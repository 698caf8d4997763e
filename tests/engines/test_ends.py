"""An answer ends well only by what its server says and what is known to be good; anything else is an error."""

import json
from typing import Any

import pytest

from gateway_svc.errors import EngineError
from tests.engines.asking import ask, ndjson, raw_server, response
from tests.engines.test_foreign_shapes import (
    CALL,
    HI,
    LAST,
    START,
    STOP,
    TEXT,
    TO_TOOLS,
    TOOLS,
    USAGE,
    USE,
    block,
    call,
    calls,
    chat,
    ended,
    engine_of,
    item,
    sse,
)

UNKNOWN = (
    *("error", "insufficient_system_resource", "abort", "RECITATION", "OTHER", "unknown", "network_error"),
    *("repetition", "PROHIBITED_CONTENT", "cancelled", "failed", "model_error", "time_limit", "content-filter"),
    *("blocklist", "malformed_function_call", "unexpected_tool_call", "server_error", "STOP_ERROR", 0, True, ["stop"]),
)


def named(name: str, data: object) -> str:
    """An event with its name in a line of its own."""
    return f"event: {name}\ndata: {data if isinstance(data, str) else json.dumps(data)}\n\n"


def data(*payloads: object) -> str:
    return "".join(f"data: {json.dumps(payload)}\n\n" for payload in payloads)


DELTA = {"type": "response.output_text.delta", "delta": "hi"}
COUNTS = {"input_tokens": 5, "output_tokens": 3}
CUT = block("delta", index=0, delta={"partial_json": '{"pa'})
BAD: dict[str, dict[str, bytes]] = {
    "chat": {
        **{f"reason {reason}": sse(HI, chat(finish=reason), USAGE, "[DONE]") for reason in UNKNOWN},
        "no reason": sse(HI, "[DONE]"),
        "no reason, but counts": sse(HI, USAGE, "[DONE]"),
        "a call without a reason": sse(*calls(call(CALL[0][1])), "[DONE]"),
        "a call and the end of the stream": sse(*calls(call(CALL[0][1]))),
        "an error, then a good end": sse(HI, {"error": {"message": "boom", "code": 500}}, STOP, "[DONE]"),
        "an error beside a good end": sse(HI, chat(finish="stop", error={"message": "boom"})),
        "an error in the delta": sse(HI, chat({"error": {"message": "boom"}}), STOP),
        "an error in words alone": sse(HI, {"error": "boom"}, STOP),
        "an error of MiniMax's": sse(HI, {"choices": None, "base_resp": {"status_code": 1002}}, "[DONE]"),
        "an error of Baidu's": sse(HI, {"error_code": 336003, "error_msg": "boom"}, STOP),
        "an error as a code and a message": sse({"code": "50501", "msg": "boom"}, STOP),
        "an event that is named an error": response(data(HI) + named("error", {"message": "boom"}) + data(STOP)),
        "an event that is named an error, in words": response(data(HI) + named("error", "boom") + data(STOP)),
        "nothing": sse(chat({"content": ""}), STOP, "[DONE]"),
        "nothing, and counts of nothing": sse(STOP, {"usage": {"prompt_tokens": 5, "completion_tokens": 0}}, "[DONE]"),
        "calls that are none": sse(HI, TOOLS, "[DONE]"),
    },
    "ollama": {
        "load": ndjson({"message": {"content": ""}, "done": True, "done_reason": "load"}),
        "unload": ndjson({"message": {"content": "hi"}}, {"done": True, "done_reason": "unload", "eval_count": 2}),
        "done, and neither a reason nor counts": ndjson({"message": {"content": "hi"}}, {"done": True}),
        "an error beside a good end": ndjson({"message": {"content": "hi"}}, {"error": "boom", **LAST}),
        "no end": ndjson({"message": {"content": "hi"}}, {"message": {"content": "x"}, "done": False}),
    },
    "responses": {
        "a failed response in a good event": sse(DELTA, ended("failed", error={"message": "boom"})),
        "cancelled": sse(DELTA, {"type": "response.cancelled", "response": {"status": "cancelled"}}),
        "queued": sse(DELTA, ended("queued")),
        "incomplete for an unknown reason": sse(DELTA, ended("incomplete", incomplete_details={"reason": "pause"})),
        "incomplete without a reason": sse(DELTA, {"type": "response.incomplete", "response": {}}),
        "incomplete by the event's name alone": response(named("response.incomplete", {"response": {}})),
        "failed by the event's name alone": response(
            data(DELTA) + named("response.failed", {"response": {"error": {"message": "boom"}}})
        ),
        "done alone": sse(DELTA, "[DONE]"),
        "a call that is not whole by its status": sse(item(status="incomplete"), ended()),
        "a call that was begun alone": sse(item(), ended()),
        "a call of a kind that was not offered": sse(DELTA, item(type="custom_tool_call"), ended(output=[])),
        "a question for an approval": sse(ended(output=[{"type": "mcp_approval_request", "id": "a"}], usage=COUNTS)),
    },
    "anthropic": {
        "a pause": sse(START, *TEXT, {"type": "message_delta", "delta": {"stop_reason": "pause_turn"}}),
        "an unknown reason": sse(START, *TEXT, {"type": "message_delta", "delta": {"stop_reason": "compaction"}}),
        "no reason": sse(START, *TEXT, {"type": "message_delta", "delta": {}}, {"type": "message_stop"}),
        "calls that are none": sse(START, TO_TOOLS, {"type": "message_stop"}),
        "a call that is cut": sse(START, block("start", index=0, content_block=USE), CUT, TO_TOOLS),
        "overloaded": sse(START, *TEXT, {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}),
    },
}


@pytest.mark.parametrize(
    ("form", "answer"),
    [pytest.param(form, answer, id=f"{form}: {name}") for form, bad in BAD.items() for name, answer in bad.items()],
)
async def test_an_end_that_is_not_known_to_be_good_is_an_error(form: str, answer: bytes):
    async with raw_server(answer) as server:
        with pytest.raises(EngineError):
            await ask(engine_of(form, server.url), model="m")


@pytest.mark.parametrize("answer", [sse(HI, "[DONE]"), sse(HI, USAGE, "[DONE]"), sse("[DONE]")])
async def test_without_a_finish_reason_the_error_tells_the_operator_what_to_do(answer: bytes):
    async with raw_server(answer) as server:
        with pytest.raises(EngineError, match=r"no finish_reason.*put a proxy before it.*docs/engines/openai\.md"):
            await ask(engine_of("chat", server.url), model="m")


CUT_SHORT: dict[str, tuple[str, bytes]] = {
    "chat: length": ("length", sse(*calls(call(CALL[0][1])), chat(finish="length"))),
    "chat: MAX_TOKENS": ("length", sse(*calls(call("")), chat(finish="MAX_TOKENS"))),
    "chat: length, and then as if all were well": (
        "length",
        sse(*calls(call(CALL[0][1])), chat(finish="length"), TOOLS, STOP),
    ),
    "chat: the context's end": ("length", sse(*calls(call("")), chat(finish="model_context_window_exceeded"))),
    **{
        f"chat: {reason}": ("content_filter", sse(*calls(call(CALL[0][1])), chat(finish=reason)))
        for reason in ("content_filter", "sensitive", "refusal", "content_filter: PROHIBITED_CONTENT")
    },
    "ollama: length": (
        "length",
        ndjson({"message": {"tool_calls": [call({"path": "a"})]}}, {**LAST, "done_reason": "length"}),
    ),
    "anthropic: max_tokens": (
        "length",
        sse(
            *(START, block("start", index=0, content_block=USE), CUT),
            {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 5}},
        ),
    ),
}


@pytest.mark.parametrize("name", CUT_SHORT)
async def test_calls_of_an_answer_that_was_cut_are_told_as_such(name: str):
    """The loop runs none of them: see gateway_svc.loop.agent."""
    finish, answer = CUT_SHORT[name]
    async with raw_server(answer) as server:
        _, result = await ask(engine_of(name.partition(":")[0], server.url), model="m")
    assert result.finish == finish
    assert len(result.message.tool_calls) == 1


async def test_a_connection_that_is_cut_behind_the_whole_answer_costs_nothing():
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = sse(HI, STOP).partition(b"\r\n\r\n")[2]
    async with raw_server(head + b"%x\r\n%b\r\n" % (len(answer), answer)) as server:
        pieces, result = await ask(engine_of("chat", server.url), model="m")
    assert ("".join(pieces), result.finish) == ("hi", "stop")


async def test_what_comes_late_of_counts_is_counted():
    answer: Any = sse(HI, STOP, "[DONE]", USAGE)
    async with raw_server(answer) as server:
        _, result = await ask(engine_of("chat", server.url), model="m")
    assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.complete) == (10, 5, True)
