"""No word of a server's is on the record or in a log, wherever it stands in an error, an answer or a refusal.

A sentinel takes the place of any one value of any error in any shape, of any engine and any MCP server; rows and log
lines are searched for it.
"""

import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import structlog
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway_svc.engines.anthropic.messages import AnthropicEngine
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.openai.responses import ResponsesEngine
from gateway_svc.engines.wire.failures import MAX_QUOTED_CHARACTERS, error_class, error_in_body, is_passing
from gateway_svc.engines.wire.patience import Patience
from gateway_svc.errors import EngineError, failure_of
from gateway_svc.messages import UserMessage
from gateway_svc.tools import ToolError
from gateway_svc.tools.mcp import results
from gateway_svc.tools.mcp.wire import refusal_of
from recording.calls import Scope, ToolCall, Usage
from recording.rows import close_call, cost_row, open_call
from tests.engines.test_refusals import REASONS, REFUSED_CONTENT, SLIPS, TOO_LONG, body_of
from tests.support.examples import examples
from tests.support.values import places, put

SENTINEL = "zebra_of_a_diary"
"""In the form of a code of ours, so that no check of a code's form hides it."""
BODIES: list[Any] = [
    *REASONS.values(),
    *(case[1] for table in (TOO_LONG, REFUSED_CONTENT, SLIPS) for case in table.values()),
]
ENGINES: list[Callable[..., Any]] = [OllamaEngine, OpenAIEngine, ResponsesEngine, AnthropicEngine]
TWICE = Patience(attempts=2, wait_s=0, max_retry_after_s=0, loading_s=0)


@st.composite
def errors(draw: st.DrawFn) -> Any:
    """An error with the sentinel in one place: alone, in a sentence, in another object, as a name."""
    body = draw(st.sampled_from(BODIES))
    place = draw(st.sampled_from(places(body)))
    forms: list[Any] = [SENTINEL, f"input_value='{SENTINEL}'", {SENTINEL: 1}, [SENTINEL], {"message": SENTINEL}]
    return put(body, place, draw(st.sampled_from(forms)))


async def ask(kind: Callable[..., Any], status: int, chunks: list[bytes]) -> EngineError | None:
    """Asks an engine whose server answers with these bytes; the client of HTTP is that of production."""
    import httpx2

    engine = kind("http://model", "m", patience=TWICE)

    async def body() -> AsyncGenerator[bytes, None]:
        for chunk in chunks:
            yield chunk

    async def send(request: Any, **_: Any) -> Any:
        return httpx2.Response(status, content=body(), headers={"content-type": "text/event-stream"}, request=request)

    async def post(client: Any, model: str, sent: bytes) -> Any:
        return await send(httpx2.Request("POST", "http://model"))

    engine._client._post = post
    try:
        async for _ in engine.step("m", [engine.encode_message(UserMessage("go"))], b"[]"):
            pass
    except EngineError as error:
        return error
    finally:
        await engine.aclose()
    return None


def on_record(error: EngineError) -> str:
    row = cost_row(
        Scope("s", "openai", "m", "t"),
        Usage(),
        model="m",
        cost_micros=None,
        created_at_ms=0,
        duration_ms=0,
        failure=failure_of(error),
    )
    return str(row) + row.SerializeToString().decode("latin-1")


@given(
    body=errors(),
    kind=st.sampled_from(ENGINES),
    status=st.sampled_from([200, 200, 400, 401, 403, 404, 413, 422, 429, 500, 503, 529]),
    framed=st.booleans(),
)
@settings(max_examples=examples(80), deadline=None)
async def test_no_word_of_a_model_server_is_on_a_row_or_in_a_log(body, kind, status, framed):
    told = body_of(body)
    with capture_logs() as logs:
        error = await ask(kind, status, [b"data: " + told + b"\n\n" if framed else told])
    assert SENTINEL not in json.dumps(logs, default=str)
    if error is not None:
        assert SENTINEL not in on_record(error)
        assert len(str(error)) < MAX_QUOTED_CHARACTERS + 200


@example(body={"error": {"code": "tool_use_failed"}}, status=401)
@given(body=errors(), status=st.sampled_from([400, 401, 403, 404, 408, 413, 422, 429, 500, 503]))
def test_what_a_server_says_never_decides_more_than_the_class_of_its_error(body, status):
    """Any words in any shape have a class, and one that no retry helps is not tried again."""
    reported = error_in_body(body_of(body), "application/json")
    kind = error_class(status, reported)
    assert issubclass(kind, EngineError)
    assert kind.code.replace("_", "").isalpha()
    if status in (401, 403):
        assert not is_passing(status, reported)


ANSWERS: list[Any] = [
    {"content": [{"type": "text", "text": "t"}], "isError": True},
    {"content": [{"type": "image", "data": "AAAA", "mimeType": "image/png"}], "resultType": "input_required"},
    {"content": [{"type": "resource", "resource": {"uri": "u", "blob": "AA"}}], "structuredContent": {"a": [1]}},
]
REFUSALS: list[Any] = [{"code": -32000, "message": "m", "data": {"a": ["x"]}}, {"code": -32602, "message": "m"}, "text"]


@given(st.data())
def test_no_word_of_an_mcp_server_is_on_a_row(data):
    """Its answers and its errors are for the model."""
    refused = data.draw(st.booleans())
    whole = data.draw(st.sampled_from(REFUSALS if refused else ANSWERS))
    place = data.draw(st.sampled_from(places(whole)[0 if refused else 1 :]))
    odd = put(whole, place, data.draw(st.sampled_from([SENTINEL, {SENTINEL: SENTINEL}, [SENTINEL]])))
    try:
        result = results.refused("t", refusal_of(odd)).result if refused else results.tool_result(odd)
    except ToolError as error:
        result = error.result
    row = close_call(open_call(ToolCall("r", "c", "t.go", "{}"), Scope("s", "openai", "m", "t")), result)
    assert SENTINEL not in str(row)


def test_logs_are_captured():
    with capture_logs() as logs:
        structlog.get_logger("gateway_svc").warning("x", text=SENTINEL)
    assert SENTINEL in json.dumps(logs)
