"""What the engines' tests share: asking for one step, and a server that sends the very bytes that a test gives it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from demo.model_server import ModelServer
from gateway_svc.engines import Engine, StepResult, TextDelta
from gateway_svc.engines.anthropic.messages import AnthropicEngine
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.openai.chat import OpenAIEngine
from gateway_svc.engines.openai.responses import ResponsesEngine
from gateway_svc.engines.wire.patience import Patience
from gateway_svc.messages import Message, ToolDefinition, UserMessage
from tests.support.listening import listening

QUICK = Patience(attempts=3, wait_s=0.001, connect_s=60, read_s=60)
READ = ToolDefinition("read", "Reads a file.", {"type": "object", "properties": {"path": {"type": "string"}}})


def engine_for(server: ModelServer, name: str, patience: Patience = QUICK) -> Engine:
    """An engine that asks the scripted model server."""
    if name == "ollama":
        return OllamaEngine(server.ollama_url, "scripted", patience=patience)
    if name == "anthropic":
        return AnthropicEngine(server.anthropic_url, "scripted", patience=patience)
    if name == "responses":
        return ResponsesEngine(server.openai_url, "scripted", patience=patience)
    return OpenAIEngine(server.openai_url, "scripted", patience=patience)


async def ask(
    engine: Engine, *messages: Message, tools: Sequence[ToolDefinition] = (), model: str = "scripted"
) -> tuple[list[str], StepResult]:
    """One step: the pieces of text, and the whole answer. The connections are closed."""
    try:
        return await ask_again(engine, *messages, tools=tools, model=model)
    finally:
        await engine.aclose()


async def ask_again(
    engine: Engine, *messages: Message, tools: Sequence[ToolDefinition] = (), model: str = "scripted"
) -> tuple[list[str], StepResult]:
    """The same; the engine stays open."""
    encoded = [engine.encode_message(message) for message in messages or [UserMessage("hello")]]
    pieces: list[str] = []
    results: list[StepResult] = []
    async for event in engine.step(model, encoded, engine.encode_tools(tools)):
        assert not results, "something came behind the result"
        if isinstance(event, TextDelta):
            pieces.append(event.text)
        else:
            results.append(event)
    return pieces, results[0]


@dataclass
class RawServer:
    """Answers each request with the next of its responses, the last one again and again."""

    responses: Sequence[bytes | Sequence[bytes]]
    """A response is written in one piece or several, a moment apart; then the connection is closed."""
    url: str = ""
    bodies: list[Any] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes one connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lengths = (line[15:] for line in head.lower().splitlines() if line.startswith("content-length:"))
        length = int(next(lengths, 0))
        self.heads.append(head)
        self.bodies.append(json.loads(await reader.readexactly(length)) if length else None)
        response = self.responses[min(len(self.bodies), len(self.responses)) - 1]
        for piece in [response] if isinstance(response, bytes) else response:
            if reader.at_eof():  # the client has left
                break
            writer.write(piece)
            await asyncio.sleep(0.001)


@asynccontextmanager
async def raw_server(*responses: bytes | Sequence[bytes]) -> AsyncIterator[RawServer]:
    """A RawServer on a port of its own."""
    raw = RawServer(responses)
    async with listening(raw.serve) as port:
        raw.url = f"http://127.0.0.1:{port}"
        yield raw


def response(body: str | bytes, content_type: str = "text/event-stream", status: str = "200 OK") -> bytes:
    """A response that ends with its connection, as HTTP allows."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n"
    return head.encode() + (body.encode() if isinstance(body, str) else body)


def events(*payloads: object, done: bool = True) -> bytes:
    """A response of server-sent events."""
    lines = [f"data: {json.dumps(payload)}\n\n" for payload in payloads]
    return response("".join([*lines, "data: [DONE]\n\n"] if done else lines))


def ndjson(*payloads: object) -> bytes:
    """A response of NDJSON."""
    return response("".join(json.dumps(payload) + "\n" for payload in payloads), "application/x-ndjson")


async def ask_openai(*responses: bytes | Sequence[bytes]) -> tuple[list[str], StepResult]:
    """One step of the OpenAI engine against these responses."""
    async with raw_server(*responses) as server:
        return await ask(OpenAIEngine(f"{server.url}/v1", "m", patience=QUICK), model="m")


async def ask_responses(*responses: bytes | Sequence[bytes]) -> tuple[list[str], StepResult]:
    """One step of the engine over OpenAI's Responses API against these responses."""
    async with raw_server(*responses) as server:
        return await ask(ResponsesEngine(f"{server.url}/v1", "m", patience=QUICK), model="m")


async def ask_ollama(*responses: bytes | Sequence[bytes]) -> tuple[list[str], StepResult]:
    """One step of the Ollama engine against these responses."""
    async with raw_server(*responses) as server:
        return await ask(OllamaEngine(server.url, "m", patience=QUICK), model="m")
