"""An agent of Strands, with its own instrumentation."""

from strands import Agent, tool
from strands.hooks import BeforeToolCallEvent
from strands.models.openai import OpenAIModel

from tests.agents.programs import shared

traces = shared.provider()


def refuse(event: BeforeToolCallEvent) -> None:
    """Refuses one tool."""
    if event.tool_use["name"] == "forbidden":
        event.cancel_tool = "not allowed"


model = OpenAIModel(client_args={"base_url": shared.MODEL_URL, "api_key": "nobody"}, model_id="m")
agent = Agent(model=model, tools=[tool(shared.lookup), tool(shared.broken), tool(shared.forbidden)])
agent.hooks.add_callback(BeforeToolCallEvent, refuse)
agent(shared.PROMPT)
traces.shutdown()
