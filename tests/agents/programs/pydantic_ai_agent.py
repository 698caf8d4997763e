"""An agent of pydantic-ai, with its own instrumentation."""

from pydantic_ai import Agent, ModelRetry, Tool
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.agents.programs.shared import MODEL_URL, PROMPT, broken, lookup, provider

traces = provider()
Agent.instrument_all(InstrumentationSettings(include_content=False, tracer_provider=traces))


def retrying(topic: str) -> str:
    """Fails for every topic."""
    try:
        return broken(topic)
    except Exception as error:
        raise ModelRetry(str(error)) from error


model = OpenAIChatModel("m", provider=OpenAIProvider(base_url=MODEL_URL, api_key="nobody"))
agent = Agent(model, tools=[lookup, Tool(retrying, name="broken")])
print(agent.run_sync(PROMPT).output)
traces.shutdown()
