"""A model that does what its user says: the input is a list of tool calls in JSON, after whose results it is done."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ncontent-length: %d\r\n\r\n"


class ObedientModel:
    """Speaks Ollama's wire form."""

    def __init__(self) -> None:
        self.url = ""
        self.told: dict[str, list[str]] = {}
        """What it was told as the results of an input's calls."""
        self.offered: set[str] = set()
        """The tools of the last request."""
        self.broken: list[str] = []
        """Requests that are no JSON."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                    lengths = [int(at[15:]) for at in head.lower().splitlines() if at.startswith("content-length:")]
                    body = await reader.readexactly(lengths[0]) if lengths else b""
                    answer = self._answer(body) if body else b"{}"
                    writer.write(HEAD % len(answer) + answer)
                    await writer.drain()
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    def _answer(self, body: bytes) -> bytes:
        try:
            asked = json.loads(body, parse_constant=self.broken.append)
        except ValueError as error:
            self.broken.append(str(error))
            asked = {"messages": []}
        self.offered = {tool["function"]["name"] for tool in asked.get("tools", [])}
        user, results = "", list[str]()
        for told in asked["messages"]:
            if told["role"] == "user":
                user, results = told["content"], []
            elif told["role"] == "tool":
                results.append(told["content"])
        message: dict[str, Any] = {"role": "assistant", "content": "done"}
        if results:
            self.told[user] = results
        elif user.startswith("["):
            message |= {"content": "", "tool_calls": [{"function": call} for call in json.loads(user)]}
        done = {"done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 9}
        return json.dumps({"model": "m", "message": message, **done}).encode() + b"\n"

    async def leave(self) -> None:
        """Ends its connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def obedient_model() -> AsyncIterator[ObedientModel]:
    """The model on a port of its own."""
    model = ObedientModel()
    server = await asyncio.start_server(model.serve, "127.0.0.1", 0, limit=2**26)
    model.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield model
        await model.leave()
