"""An agent of LangChain on LangGraph, with OpenInference's instrumentation."""

from langchain.agents import create_agent
from langchain.agents.middleware import wrap_tool_call
from langchain_core.messages import ToolMessage
from langchain_openai import ChatOpenAI
from openinference.instrumentation.langchain import LangChainInstrumentor

from tests.agents.programs import shared

traces = shared.provider()
LangChainInstrumentor().instrument(tracer_provider=traces)


@wrap_tool_call
def told(request, handler):
    """Tells the model of a tool that failed, and goes on."""
    try:
        return handler(request)
    except shared.NotThere as error:
        return ToolMessage(str(error), tool_call_id=request.tool_call["id"], status="error")


model = ChatOpenAI(model="m", base_url=shared.MODEL_URL, api_key="nobody")
agent = create_agent(model, [shared.lookup, shared.broken], middleware=[told])
print(agent.invoke({"messages": [("user", shared.PROMPT)]})["messages"][-1].content)
traces.shutdown()
