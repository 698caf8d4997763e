"""Any single mutation of a good stream gives the answer or a clear error: never an answer with less."""

import json
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from demo.model_server import ModelServer
from demo.script import Call, Script, Step
from demo.script_formats import Format, count
from gateway_svc.engines import StepResult
from gateway_svc.engines.anthropic.messages import AnthropicEngine
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.openai.responses import ResponsesEngine
from gateway_svc.engines.wire.patience import Patience
from gateway_svc.engines.wire.streams import AnswerDecoder
from gateway_svc.errors import EngineError
from tests.engines.asking import ask, ask_again

ONCE = Patience(attempts=1)
ENGINES = {
    "/api/chat": OllamaEngine,
    "/v1/chat/completions": OpenAIEngine,
    "/v1/responses": ResponsesEngine,
    "/v1/messages": AnthropicEngine,
}
STEP = Step(
    text="One two.",
    thinking="Hm.",
    tool_calls=(Call(name="read", arguments={"path": "a.txt"}, id="call_A"), Call(name="now", id="call_B")),
)
REQUEST = {"model": "m", "stream": True, "stream_options": {"include_usage": True}, "messages": [], "input": []}
ODD: list[Any] = [None, 0.5, True, "x", [], {}]


def chunks_of(path: str) -> list[bytes]:
    from demo.model_server import _FORMATS

    form: Format = _FORMATS[path]
    return form.chunks(REQUEST, STEP, count(STEP, 400))


def mutations(chunks: list[bytes]) -> Iterator[list[bytes]]:
    """Each chunk behind a comment, as the last one, and with each field left out or of another kind."""
    for at, chunk in enumerate(chunks):
        before, after = chunks[:at], chunks[at + 1 :]
        yield [*before, b": a comment\n\n" if chunk.startswith((b"data", b"event")) else b"\n", chunk, *after]
        yield [*before, chunk]
        prefix, brace, rest = chunk.partition(b"{")
        if not brace:
            continue
        payload = json.loads(brace + rest)
        for changed in changes(payload):
            yield [*before, prefix + json.dumps(changed).encode() + rest[len(rest.rstrip()) :], *after]


def changes(payload: Any) -> Iterator[Any]:
    """The payload with one field left out or of another kind, down to three levels."""
    if isinstance(payload, dict):
        for name, value in payload.items():
            yield {other: kept for other, kept in payload.items() if other != name}
            yield from ({**payload, name: odd} for odd in ODD if odd != value)
            yield from ({**payload, name: changed} for changed in changes(value))
    elif isinstance(payload, list):
        for at, value in enumerate(payload):
            yield payload[:at] + payload[at + 1 :]
            yield from ([*payload[:at], changed, *payload[at + 1 :]] for changed in changes(value))


def told(result: StepResult) -> tuple[str, list[tuple[str, str]]]:
    calls = [(call.name, call.arguments.replace(" ", "")) for call in result.message.tool_calls]
    return result.message.text, calls


@pytest.mark.long
@pytest.mark.parametrize("path", ENGINES)
async def test_a_stream_with_one_fault_is_the_answer_or_an_error(path):
    """A piece of text that is lost on the way cannot be known: what is mutated is all else."""
    good = chunks_of(path)
    kind = ENGINES[path]
    less: list[bytes] = []
    engine: Any = kind("http://127.0.0.1:9", "m", patience=ONCE)
    sent: list[bytes] = []

    async def payloads(*_: object) -> AsyncGenerator[bytes, None]:
        decoder = AnswerDecoder()
        for payload in [*decoder.feed(b"".join(sent)), *decoder.flush()]:
            yield payload

    engine._client._payloads = payloads  # the bytes without a network: there are thousands of streams

    async def play(chunks: list[bytes]) -> StepResult | EngineError:
        sent[:] = chunks
        try:
            return (await ask_again(engine, model="m"))[1]
        except EngineError as error:
            return error

    whole = await play(good)
    assert isinstance(whole, StepResult)
    assert told(whole)[0] == "One two."
    assert len(told(whole)[1]) == 2
    tried = [chunks for chunks in mutations(good) if keeps_content(good, chunks)]
    for chunks in tried:
        result = await play(chunks)
        if isinstance(result, StepResult) and result.finish == "stop" and not is_enough(result, whole):
            less.append(b"".join(chunks))
    await engine.aclose()
    assert less == [], f"{len(less)} of {len(tried)}"


def is_enough(result: StepResult, whole: StepResult) -> bool:
    text, calls = told(result)
    wanted, asked = told(whole)
    # a call whose name or id was changed is told as another one, which the toolbox refuses or runs as it is asked
    return text == wanted and len(calls) >= len(asked)


def keeps_content(good: list[bytes], chunks: list[bytes]) -> bool:
    """Whether the pieces of text and of calls are all there, so that nothing but the frame is at fault."""
    return content_of(chunks) == content_of(good)


def content_of(chunks: list[bytes]) -> Counter[str]:
    found: Counter[str] = Counter()
    for chunk in chunks:
        _, brace, rest = chunk.partition(b"{")
        if brace:
            found.update(texts_in(json.loads(brace + rest)))
    return found


def texts_in(payload: Any, name: str = "") -> Iterator[str]:
    if isinstance(payload, dict):
        for key, value in payload.items():
            yield from texts_in(value, key)
    elif isinstance(payload, list):
        for value in payload:
            yield from texts_in(value, name)
    elif name in CONTENT:
        yield f"{name}: {payload!r}"


CONTENT = {"content", "arguments", "delta", "text", "partial_json", "thinking", "reasoning_content", "name", "path"}


async def test_the_scripted_server_is_what_is_mutated():
    async with ModelServer(Script(steps=(STEP,))) as server:
        _, result = await ask(OpenAIEngine(server.openai_url, "m"), model="m")
    assert told(result) == ("One two.", [("read", '{"path":"a.txt"}'), ("now", "{}")])
