"""A scripted model server: speaks Ollama's, OpenAI's, Anthropic's and Gemini's wire formats over a real port.

    python -m demo.model_server --script script.toml --port 0

prints `model server on http://127.0.0.1:PORT` and serves until it is killed:

    POST /api/chat              Ollama, streaming or not
    GET  /api/tags              Ollama's models
    POST /api/show              a model's capabilities
    POST /v1/chat/completions   OpenAI, streaming or not
    POST /v1/responses          OpenAI's other API, streaming or not
    POST /v1/messages           Anthropic, streaming or not
    POST /v1beta/models/MODEL:generateContent, :streamGenerateContent     Gemini
    GET  /v1/models             OpenAI's models
    GET  /pages/...             the script's pages

demo.script documents the script. Requests are checked as the real servers check
them, and refused with the same messages.
"""

import argparse
import asyncio
import contextlib
import json
import re
from collections import Counter, deque
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from demo.script import Page, Refusal, Script, Step, load_script, position
from demo.script_anthropic import AnthropicFormat
from demo.script_formats import BYTES_PER_TOKEN, Format, Rejected, count, encode, skim
from demo.script_gemini import GeminiFormat
from demo.script_http import HttpConnection, Received, Reply
from demo.script_ollama import OllamaFormat
from demo.script_openai import OpenAIFormat
from demo.script_responses import ResponsesFormat

_FORMATS: dict[str, Format] = {
    "/api/chat": OllamaFormat(),
    "/v1/chat/completions": OpenAIFormat(),
    "/v1/responses": ResponsesFormat(),
    "/v1/messages": AnthropicFormat(),
}
_GEMINI = GeminiFormat()
_GEMINI_PATH = re.compile(r"/v1beta/models/([^/:]+):(streamG|g)enerateContent")
_SKIMMED = ("/api/chat", "/v1/chat/completions")
"""Paths whose requests can be answered without parsing them."""
_PROBED = ("/", "/v1")
"""The paths of readiness probes, which may come at any time."""
_ACCEPT_ROUNDS = 5
"""Rounds of the event loop until an accepted connection is set up; close() would lose one that is not."""
_JSON = "application/json; charset=utf-8"


class ModelServer:
    """A scripted model server on a port of its own, as an async context manager."""

    def __init__(self, script: Script, *, host: str = "127.0.0.1", port: int = 0, keep_requests: int = 1000) -> None:
        """`requests` keeps the last `keep_requests` requests, without readiness probes."""
        self.script = script
        self.requests: deque[Received] = deque(maxlen=keep_requests)
        self._host = host
        self._port = port
        self._met: Counter[int] = Counter()
        self._received = 0
        self._arrival = asyncio.Event()
        self._connections: set[HttpConnection] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: HttpConnection(self._answer, self._connections), self._host, self._port
        )
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            for listening in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listening)
            for _ in range(_ACCEPT_ROUNDS):
                await asyncio.sleep(0)
            self._server.close()
            for connection in tuple(self._connections):
                connection.abort()
            await asyncio.sleep(0)  # so that they close
            await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Its address, `http://127.0.0.1:PORT`."""
        return f"http://{self._host}:{self._port}"

    @property
    def ollama_url(self) -> str:
        """The value for GATEWAY_OLLAMA_URL."""
        return self.url

    @property
    def anthropic_url(self) -> str:
        """The value for GATEWAY_ANTHROPIC_URL."""
        return self.url

    @property
    def openai_url(self) -> str:
        """The value for GATEWAY_OPENAI_URL."""
        return f"{self.url}/v1"

    async def received(self, count: int) -> None:
        """Waits until this many requests, not counting readiness probes, have arrived since the server was made."""
        while self._received < count:
            self._arrival.clear()
            await self._arrival.wait()

    async def _answer(self, request: Received, reply: Reply) -> None:
        if request.method != "GET" or request.path not in _PROBED:
            self.requests.append(request)
            self._received += 1
            self._arrival.set()
        path = request.path.partition("?")[0]
        if request.method == "POST" and path in _FORMATS:
            await self._chat(path, request, reply, _FORMATS[path])
        elif request.method == "POST" and _GEMINI_PATH.fullmatch(path):
            await self._chat(path, request, reply, _GEMINI)
        elif page := self.script.pages.get(path):
            await self._page(page, reply)
        elif listing := self._listing(path):
            reply.whole(200, _JSON, encode(listing))
        else:
            reply.whole(404, "text/plain", b"404 page not found")

    async def _chat(self, path: str, request: Received, reply: Reply, form: Format) -> None:
        try:
            if self.script.check or path not in _SKIMMED:
                body = _parse(request.body)
                if named := _GEMINI_PATH.fullmatch(path):
                    body |= {"model": named[1], "stream": named[2] == "streamG"}
                _check(form, body, self.script, _authorization(request))
                form.check_size(len(request.body) // BYTES_PER_TOKEN, self.script.context_tokens)
                at = position(form.roles(body), one_prompt=self.script.one_prompt)
            else:
                body, at = skim(request.body)
            aside = None if body.get("tools") else self.script.aside
            number, step = (-1, aside) if aside else self._step_at(at)
        except Rejected as rejected:
            reply.whole(rejected.status, _JSON, form.error(rejected))
            return
        await asyncio.sleep(step.delay_ms / 1000)
        if refuse := self._refusal(number, step):
            refusal = form.error(Rejected(refuse.status, refuse.message, code=refuse.code))
            told = refusal if refuse.body is None else refuse.body.encode()
            reply.whole(refuse.status, _JSON, told, refuse.headers)
            return
        counts = count(step, len(request.body), self.script.context_tokens)
        if form.streams(body):
            await self._stream(form.chunks(body, step, counts), form, step, reply)
        else:
            reply.whole(200, _JSON, form.whole(body, step, counts))

    def _step_at(self, at: int) -> tuple[int, Step]:
        found = self.script.step_at(at)
        if found is None:
            raise Rejected(400, f"the script has no step {at + 1}")
        return found

    def _refusal(self, number: int, step: Step) -> Refusal | None:
        if step.refuse is None:
            return None
        self._met[number] += 1
        return step.refuse if step.refuse.times is None or self._met[number] <= step.refuse.times else None

    async def _stream(self, chunks: list[bytes], form: Format, step: Step, reply: Reply) -> None:
        if step.error_after is not None:
            chunks[step.error_after :] = [form.error_chunk("the script says so", step.error_status)]
        if step.cut_after is not None:
            del chunks[step.cut_after :]
        if step.split_bytes is not None:
            size, whole = step.split_bytes, b"".join(chunks)
            chunks = [whole[at : at + size] for at in range(0, len(whole), size)]
        reply.begin(200, form.stream_type)
        if step.chunk_delay_ms:
            for number, chunk in enumerate(chunks):
                await asyncio.sleep(step.chunk_delay_ms / 1000 if number else 0)
                reply.send([chunk])
        else:
            reply.send(chunks)
        if step.cut_after is None:
            reply.end()
        else:
            reply.cut()

    async def _page(self, page: Page, reply: Reply) -> None:
        await asyncio.sleep(page.delay_ms / 1000)
        body = page.body.encode() if isinstance(page.body, str) else page.body
        reply.whole(page.status, page.content_type, body, page.headers)

    def _listing(self, path: str) -> dict[str, Any] | None:
        names = self.script.models or ("scripted",)
        if path == "/api/tags":
            return {"models": [{"name": name, "model": name, "size": 0, "digest": "", "details": {}} for name in names]}
        if path == "/api/show":
            return {"details": {"family": "scripted"}, "capabilities": sorted(self.script.capabilities)}
        if path == "/v1/models":
            return {
                "object": "list",
                "data": [{"id": name, "object": "model", "owned_by": "scripted"} for name in names],
            }
        return None


def _authorization(request: Received) -> str:
    key = request.headers.get("x-api-key")
    return f"Bearer {key}" if key else request.headers.get("authorization", "")


def _parse(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Rejected(400, f"the request is no JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise Rejected(400, "the request is no JSON object")
    return parsed


def _check(form: Format, body: dict[str, Any], script: Script, authorization: str) -> None:
    try:
        form.check(body, script, authorization)
    except (AttributeError, KeyError, TypeError) as error:
        raise Rejected(400, f"the request has not the right shape: {error!r}") from error


async def serve(script: Script, host: str, port: int) -> None:
    """Serves until cancelled."""
    async with ModelServer(script, host=host, port=port) as server:
        print(f"model server on {server.url}", flush=True)
        await asyncio.get_running_loop().create_future()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.model_server", description="A scripted model server.")
    parser.add_argument("--script", type=Path, required=True, help="a .toml or .json file, see demo/script.py")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    arguments = parser.parse_args()
    try:
        script = load_script(arguments.script)
    except (OSError, ValueError) as error:
        parser.error(f"{arguments.script}: {error}")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(script, arguments.host, arguments.port))


if __name__ == "__main__":
    main()
