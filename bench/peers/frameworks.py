"""Turns of the frameworks and of a bare loop, in the frameworks' environment: it imports nothing of ours.

Each streams its answers from the same model server in OpenAI's format, and has one tool, which reads a small file. A
turn of n steps is n requests to the model, all but the last of which answer with a call of the tool.
"""

import asyncio
import io
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

PROMPT = "Look up the numbers."
MODEL = "scripted"

Turn = Callable[[str, int, "Tool"], Awaitable[None]]
"""Takes the model server's base URL, how many steps, and the tool."""


class Tool:
    """Reads the file, and counts how often."""

    def __init__(self, workspace: Path) -> None:
        self.calls = 0
        self._workspace = workspace

    def read(self, path: str) -> str:
        """Reads a file."""
        self.calls += 1
        return (self._workspace / path).read_text()


async def httpx2_loop(url: str, steps: int, tool: Tool) -> None:
    """The shortest loop that streams, runs the tool and keeps the history."""
    import httpx2

    parameters = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
    function = {"name": "read", "description": "Reads a file.", "parameters": parameters}
    request: dict[str, Any] = {"model": MODEL, "stream": True, "tools": [{"type": "function", "function": function}]}
    messages: list[dict[str, Any]] = [{"role": "user", "content": PROMPT}]
    async with httpx2.AsyncClient(timeout=60) as client:
        for _ in range(steps):
            text, calls = "", dict[int, dict[str, Any]]()
            body = {**request, "messages": messages}
            async with client.stream("POST", f"{url}/chat/completions", json=body) as response:
                async for line in response.aiter_lines():
                    if not line.startswith("data: {"):
                        continue
                    for choice in json.loads(line[6:])["choices"]:
                        text += choice["delta"].get("content") or ""
                        for piece in choice["delta"].get("tool_calls", ()):
                            call = calls.setdefault(
                                piece["index"], {**piece, "function": {"name": "", "arguments": ""}}
                            )
                            for name, value in piece["function"].items():
                                call["function"][name] += value
            messages.append(
                {"role": "assistant", "content": text} | ({"tool_calls": [*calls.values()]} if calls else {})
            )
            for call in calls.values():
                result = tool.read(**json.loads(call["function"]["arguments"]))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})


async def pydantic_ai(url: str, steps: int, tool: Tool) -> None:
    """Agent.run() with a handler of the stream's events."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.usage import UsageLimits

    async def listen(_context: Any, events: Any) -> None:
        async for _ in events:
            pass

    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=url, api_key="none"))
    agent = Agent(model, tools=[tool.read])
    await agent.run(PROMPT, event_stream_handler=listen, usage_limits=UsageLimits(request_limit=None))


async def openai_agents(url: str, steps: int, tool: Tool) -> None:
    """Runner.run_streamed(), without its tracing to OpenAI."""
    from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
    from openai import AsyncOpenAI

    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=url, api_key="none") as client:
        model = OpenAIChatCompletionsModel(MODEL, client)
        agent = Agent(name="reader", model=model, tools=[function_tool(tool.read)])
        async for _ in Runner.run_streamed(agent, PROMPT, max_turns=steps + 1).stream_events():
            pass


async def langchain(url: str, steps: int, tool: Tool) -> None:
    """create_agent() on LangGraph, its messages streamed."""
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=MODEL, base_url=url, api_key="none", streaming=True, use_responses_api=False)
    agent = create_agent(model, [tool.read])
    given = {"messages": [{"role": "user", "content": PROMPT}]}
    async for _ in agent.astream(given, {"recursion_limit": 3 * steps + 10}, stream_mode="messages"):
        pass


async def agno(url: str, steps: int, tool: Tool) -> None:
    """Agent.arun() with its events streamed, without its telemetry."""
    from agno.agent import Agent
    from agno.models.openai.like import OpenAILike

    model = OpenAILike(id=MODEL, base_url=url, api_key="none")
    agent = Agent(model=model, tools=[tool.read], telemetry=False)
    async for _ in agent.arun(PROMPT, stream=True, stream_events=True):
        pass


async def smolagents(url: str, steps: int, tool: Tool) -> None:
    """ToolCallingAgent with its outputs streamed.

    It gives results to the model as words of the user, so that the scripted model never ends: it is ended by its limit
    of steps, after which it asks for a last answer.
    """
    from smolagents import LogLevel, OpenAIServerModel, ToolCallingAgent
    from smolagents import tool as make_tool

    def read(path: str) -> str:
        """Reads a file.

        Args:
            path: the file.
        """
        return tool.read(path)

    model = OpenAIServerModel(MODEL, api_base=url, api_key="none")
    agent = ToolCallingAgent(
        [make_tool(read)], model, stream_outputs=True, max_steps=steps - 1, verbosity_level=LogLevel.OFF
    )
    for _ in agent.run(PROMPT, stream=True):
        pass


TURNS: dict[str, Turn] = {
    "httpx2": httpx2_loop,
    "pydantic-ai": pydantic_ai,
    "openai-agents": openai_agents,
    "langchain": langchain,
    "agno": agno,
    "smolagents": smolagents,
}


async def _work(name: str, workspace: str) -> None:
    os.environ["OPENAI_API_KEY"] = "none"
    answers, sys.stdout = sys.stdout, io.StringIO()  # some print what the model says
    while line := await asyncio.to_thread(sys.stdin.readline):
        question = json.loads(line)
        tool, steps, started = Tool(Path(workspace)), question["steps"], time.perf_counter()
        await TURNS[name](question["url"], steps, tool)
        took = (time.perf_counter() - started) * 1000 / steps
        if tool.calls != steps - 1:
            raise RuntimeError(f"{name} called the tool {tool.calls} times in {steps} steps")
        print(json.dumps(took), file=answers, flush=True)


if __name__ == "__main__":
    asyncio.run(_work(**json.loads(sys.argv[1])))
