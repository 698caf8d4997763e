"""Whatever has answered in a session so far, its history is accepted by the next server, by its own rules."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.model_server import _FORMATS
from demo.script import Script
from demo.script_formats import Rejected
from gateway_svc.engines import Engine
from gateway_svc.engines.anthropic.messages import AnthropicEngine
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.openai.responses import ResponsesEngine
from gateway_svc.engines.wire.patience import Patience
from gateway_svc.errors import EngineRejected
from gateway_svc.messages import AssistantMessage, Message, Native, SystemMessage, ToolMessage, UserMessage
from recording.calls import ToolCall
from tests.engines import stranger
from tests.engines.stranger import Reply, Stranger
from tests.support.examples import examples

ONCE = Patience(attempts=1)
URL = "http://127.0.0.1:9"


def scripted(path: str) -> Any:
    """The rules of a scripted server, which checks as the real one does."""

    def check(request: stranger.Request) -> Reply | None:
        try:
            _FORMATS[path].check(request, Script(), "")
        except Rejected as refused:
            return stranger.refusal(refused.message, refused.status)
        return None

    return check


SERVERS: dict[str, tuple[type[Any], Any]] = {
    "gemini": (OpenAIEngine, stranger._gemini),
    "openrouter": (OpenAIEngine, stranger._openrouter),
    "mistral": (OpenAIEngine, stranger._mistral),
    "moonshot": (OpenAIEngine, stranger._kimi),
    "cerebras": (OpenAIEngine, stranger._no_thoughts),
    "no empty answers": (OpenAIEngine, stranger._no_empty),
    "unique ids": (OpenAIEngine, stranger._unique_ids),
    "bedrock": (OpenAIEngine, stranger._anthropic_ids),
    "vllm before stream_options": (OpenAIEngine, stranger._no_stream_options),
    "llama.cpp": (OpenAIEngine, scripted("/v1/chat/completions")),
    "responses": (ResponsesEngine, stranger._responses),
    "openai's responses": (ResponsesEngine, scripted("/v1/responses")),
    "ollama": (OllamaEngine, scripted("/api/chat")),
    "anthropic": (AnthropicEngine, scripted("/v1/messages")),
}
ORIGINS = [f"chat {URL}", "chat https://other.example/v1", f"responses {URL}", f"messages {URL}", f"ollama {URL}"]
IDS = ["call_1", "functions.read:0", "x" * 70, "a b", "Ab1Cd2Ef3", "toolu_01", "é", "chatcmpl-tool-8f1"]

words = st.sampled_from(["", "Hm.", " ", "Yes, \ud800 that."])
natives = st.none() | st.builds(Native, st.sampled_from(ORIGINS), st.sampled_from(["m", "other"]), st.just(()))
written = st.sampled_from(["{}", '{"path": "a"}', '{"path": ', "[1]", ""])


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    """Turns of any engines: a user's words, steps with calls and their results, an answer."""
    messages: list[Message] = [SystemMessage("Be kind.")] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(1, 3))):
        messages.append(UserMessage(f"question {turn}"))
        for _ in range(draw(st.integers(0, 2))):
            ids = draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=3, unique=True))
            names = draw(st.sampled_from(["read", "t.echo", "a b", ""]))
            calls = tuple(ToolCall(f"row-{at}", given, names, draw(written)) for at, given in enumerate(ids))
            messages.append(AssistantMessage(draw(words), draw(words), calls, draw(natives)))
            messages += [ToolMessage(call.provider_call_id, call.name, draw(words)) for call in calls]
        messages.append(AssistantMessage(draw(words), draw(words), (), draw(natives)))
    return [*messages, UserMessage("go on")]


@pytest.mark.long
@pytest.mark.parametrize("name", SERVERS)
@given(history=histories())
@settings(max_examples=examples(60))
async def test_every_history_is_accepted(name, history):
    """At most after the refusals that teach the engine what the server takes, and never twice for the same."""
    kind, check = SERVERS[name]
    engine: Engine = kind(URL, "m", patience=ONCE)
    server = Stranger([Reply(b"")], check)
    answer(engine, server)
    encoded = [engine.encode_message(message) for message in history]
    for _ in range(2):
        async for _ in engine.step("m", encoded, b"[]"):
            pass
    refused_before = server.refused
    async for _ in engine.step("m", encoded, b"[]"):
        pass
    assert server.refused == refused_before, "what was learned is remembered"
    assert server.refused <= 2
    await engine.aclose()


def answer(engine: Any, server: Stranger) -> None:
    """Puts the server in the place of the network: thousands of histories are tried."""
    import json

    async def step(model: str, body: bytes, make: Any) -> Any:
        server.requests.append(json.loads(body))
        if refused := server.check(server.requests[-1]):
            server.refused += 1
            words = json.loads(refused.body)["error"]["message"]
            raise EngineRejected(engine.name, model, f"and says: {words}", refused.status)
        return
        yield

    engine._client.step = step
