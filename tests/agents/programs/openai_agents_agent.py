"""An agent of the OpenAI Agents SDK, with OpenInference's instrumentation."""

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool
from openai import AsyncOpenAI
from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor

from tests.agents.programs import shared

traces = shared.provider()
OpenAIAgentsInstrumentor().instrument(tracer_provider=traces)
model = OpenAIChatCompletionsModel("m", AsyncOpenAI(base_url=shared.MODEL_URL, api_key="nobody"))
tools = [
    function_tool(shared.lookup),
    function_tool(shared.broken),
    function_tool(shared.forbidden, needs_approval=True),
]
result = Runner.run_sync(agent := Agent("helper", tools=tools, model=model), shared.PROMPT)
while result.interruptions:
    state = result.to_state()
    for asked in result.interruptions:
        state.reject(asked)
    result = Runner.run_sync(agent, state)
print(result.final_output)
traces.shutdown()
