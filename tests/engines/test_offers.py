"""Whoever names a model that a server does not have is told which it has, where the server says so."""

import asyncio
import json
from typing import Any

import pytest

from gateway_svc.engines.anthropic.messages import AnthropicEngine
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.openai.responses import ResponsesEngine
from gateway_svc.engines.wire import offers
from gateway_svc.errors import EngineRejected, ModelNotFound
from tests.engines.asking import QUICK, RawServer, ask, raw_server, response
from tests.support.listening import listening

OPENAI = {"data": [{"id": "gpt-b"}, {"id": "gpt-a"}, {"id": "gpt-a"}, {"id": 5}, "text", {"id": "no\nname"}]}
ENGINES: dict[str, tuple[Any, str, Any]] = {
    "chat": (lambda url: OpenAIEngine(f"{url}/v1", "m", api_key="sk-1", patience=QUICK), "/v1/models", OPENAI),
    "responses": (lambda url: ResponsesEngine(f"{url}/v1", "m", api_key="sk-1", patience=QUICK), "/v1/models", OPENAI),
    "anthropic": (lambda url: AnthropicEngine(url, "m", api_key="sk-1", patience=QUICK), "/v1/models", OPENAI),
    "ollama": (
        lambda url: OllamaEngine(url, "m", patience=QUICK),
        "/api/tags",
        {"models": [{"name": "gpt-b"}, {"name": "gpt-a"}]},
    ),
}
MISSING = response('{"error": {"message": "no model nope"}}', "application/json", "404 Not Found")


def listing(value: Any, status: str = "200 OK") -> bytes:
    return response(json.dumps(value), "application/json", status)


async def told(server: RawServer, engine: str = "chat") -> str:
    with pytest.raises(ModelNotFound) as missing:
        await ask(ENGINES[engine][0](server.url), model="nope")
    return missing.value.reason


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_error_names_what_the_server_offers(engine: str):
    _, path, listed = ENGINES[engine]
    async with raw_server(MISSING, listing(listed)) as server:
        assert await told(server, engine) == "and says: no model nope; it offers gpt-a, gpt-b"
    assert server.heads[1].startswith(f"GET {path} HTTP/1.1\r\n")
    assert ("sk-1" in server.heads[1]) == (engine != "ollama")


async def test_of_many_models_those_with_similar_names_are_named():
    many = {"data": [{"id": f"model-{number}"} for number in range(300)] + [{"id": "nopes"}]}
    async with raw_server(MISSING, listing(many)) as server:
        assert (await told(server)).endswith("; it offers 301 models, such as nopes")


@pytest.mark.parametrize(
    "answer",
    [
        listing(OPENAI, "401 Unauthorized"),
        listing({"data": "text"}),
        listing([1, 2]),
        response("<html>", "text/html"),
        response("[" * 100_000, "application/json"),
        response("x" * (offers.MAX_BYTES + 1), "application/json"),
        listing({"data": [{"id": "nope"}]}),
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{",
        b"",
    ],
)
async def test_a_server_that_does_not_say_leaves_the_error_as_it_is(answer: bytes):
    async with raw_server(MISSING, answer) as server:
        assert await told(server) == "and says: no model nope"


async def test_a_list_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(offers, "SECONDS", 0.05)
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET"):
            await reader.read()
            left.set()
        else:
            writer.write(MISSING)

    async with listening(serve) as port:
        assert await told(RawServer([], f"http://127.0.0.1:{port}")) == "and says: no model nope"
        await left.wait()


async def test_what_is_refused_otherwise_asks_for_no_list():
    async with raw_server(listing({"error": "no key"}, "401 Unauthorized")) as server:
        with pytest.raises(EngineRejected):
            await ask(ENGINES["chat"][0](server.url))
    assert len(server.heads) == 1
