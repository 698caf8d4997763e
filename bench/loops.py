"""The loops to compare: the product's agent loop, a bare one, and one that only sends the bytes."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
from pydantic import BaseModel
from uuid_utils import uuid7

from bench.workers import answer, options, questions
from gateway_svc.engines.ollama import OllamaEngine
from gateway_svc.engines.wire.encoding import encode
from gateway_svc.loop.agent import Agent, Limits
from gateway_svc.loop.answers import Answers
from gateway_svc.messages import UserMessage
from gateway_svc.tools import ToolContext
from gateway_svc.tools.files import Files
from gateway_svc.tools.toolbox import Toolbox
from gateway_svc.turns.account import TurnAccount
from gateway_svc.turns.events import TurnEvents
from gateway_svc.turns.turn import Turn
from recording.calls import Scope, ToolResult
from recording.delivery.connection import Target
from recording.record import open_record

MODEL = "scripted"
PROMPT = "Look up the numbers."
RESULT = "The number is 1."
MAX_STEPS = 400

Loop = Callable[[int], Awaitable[object]]
"""Takes this many steps."""


class ProbeArguments(BaseModel):
    """The tool's arguments."""

    number: int


class Probe:
    """A tool that does next to nothing (the Tool protocol)."""

    name = "probe"
    description = "Looks up a number."
    parameters = ProbeArguments

    async def run(self, arguments: ProbeArguments, context: ToolContext) -> ToolResult:
        return ToolResult(RESULT, result_bytes=len(RESULT))


def agent_loop(url: str, place: Path, address: str) -> Loop:
    """The product's loop, with its record. Events for the client are built and dropped."""
    record = open_record(place, Target(address))
    record.start()
    engine = OllamaEngine(url, MODEL)
    limits = Limits(max_steps=MAX_STEPS)
    agent = Agent(
        engine, Toolbox([Probe()]), Files(place), record.logger, price=lambda *_: 0, answers=Answers(1), limits=limits
    )

    async def listen(events: TurnEvents) -> None:
        async for _ in events.stream():
            pass

    async def run(steps: int) -> None:
        scope = Scope(str(uuid7()), engine.name, MODEL, str(uuid7()))
        history, events = [UserMessage(PROMPT)], TurnEvents()
        turn = Turn(scope, "", [*history], lambda _: None, events, TurnAccount(events.warn), max_steps=steps)
        listener = asyncio.create_task(listen(events))
        await agent.run(turn)
        events.close()
        await listener

    return run


def bare_loop(url: str, file: str = "") -> Loop:
    """The shortest loop that streams, runs the tool and keeps the history. The tool reads file, where there is one."""
    client = httpx2.AsyncClient(timeout=60)
    path = Path(file) if file else None

    async def run(steps: int) -> None:
        messages: list[dict[str, Any]] = [{"role": "user", "content": PROMPT}]
        for _ in range(steps):
            async with client.stream("POST", f"{url}/api/chat", json=_request(messages)) as response:
                text, calls = "", []
                async for line in response.aiter_lines():
                    message = json.loads(line)["message"]
                    text += message.get("content", "")
                    calls += message.get("tool_calls", [])
            messages.append({"role": "assistant", "content": text, "tool_calls": calls})
            for call in calls:
                name = call["function"]["name"]
                result = path.read_text() if path else RESULT
                messages.append({"role": "tool", "tool_call_id": call["id"], "tool_name": name, "content": result})

    return run


def bytes_loop(url: str) -> Loop:
    """Sends prepared requests of the same sizes and ignores the answers."""
    client = httpx2.AsyncClient(timeout=60)
    call = {"id": "call_12345678", "function": {"name": "probe", "arguments": {"number": 1}}}
    step: list[dict[str, Any]] = [
        {"role": "assistant", "content": "I will look that up.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_12345678", "tool_name": "probe", "content": RESULT},
    ]
    bodies = [encode(_request([{"role": "user", "content": PROMPT}, *step * number])) for number in range(MAX_STEPS)]

    async def run(steps: int) -> None:
        for body in bodies[:steps]:
            async with client.stream("POST", f"{url}/api/chat", content=body) as response:
                async for _ in response.aiter_bytes():
                    pass

    return run


def _request(messages: list[dict[str, Any]]) -> dict[str, Any]:
    schema = {"type": "function", "function": {"name": "probe", "parameters": ProbeArguments.model_json_schema()}}
    context = {"num_ctx": 32768}
    return {"model": MODEL, "stream": True, "options": context, "tools": [schema], "messages": messages}


async def _work(url: str, loop: str, place: str = "", address: str = "", file: str = "") -> None:
    run = bare_loop(url, file) if loop == "bare" else bytes_loop(url) if loop == "bytes" else None
    run = run or agent_loop(url, Path(place), address)
    async for question in questions():
        started = time.perf_counter()
        await run(question["steps"])
        answer((time.perf_counter() - started) * 1000 / question["steps"])


if __name__ == "__main__":
    asyncio.run(_work(**options()))
