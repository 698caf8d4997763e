"""Traceloop's SDKs and OpenLLMetry's instrumentations, of Python and of JavaScript.

Spans of workflows, agents, tasks and tools are by names of its own, those of requests by the conventions for generative
AI, in the words of whichever year. The table follows what traceloop-sdk 0.62.4 sent, and its own list of attributes
(opentelemetry-semantic-conventions-ai 0.5.1).
"""

from dataclasses import replace

from intake_svc.dialects import aisdk, conventions
from intake_svc.dialects.base.table import Dialect
from intake_svc.dialects.conventions import FRAME, MCP_CALL, MCP_SERVER, Convention

_KIND, _REQUEST = "traceloop.span.kind", "llm.request.type"
_SESSIONS = (
    "traceloop.association.properties.session_id",  # the name that the SDK has for it
    "traceloop.association.properties.thread_id",  # LangGraph's
    "traceloop.association.properties.chat_id",
)
MARKS = (_KIND, _REQUEST)
"""Of which each of its own spans has one."""
AMBIENT = ("traceloop.workflow.name", "traceloop.entity.name", "traceloop.entity.path", *_SESSIONS)
"""Of which each span has one within a workflow or a session, of whichever library and by whichever convention it is."""
_SCOPES = ("opentelemetry.instrumentation.", "traceloop.", "@traceloop/")
_MCP_SCOPE = "opentelemetry.instrumentation.mcp"

DIALECT = Dialect(engine="traceloop", agent="traceloop")
SPANS = replace(
    conventions.SPANS,
    kind=(*conventions.SPANS.kind, *MARKS, *AMBIENT, aisdk.MARK),
    session=(*conventions.SPANS.session, *_SESSIONS),
    tool=(*conventions.SPANS.tool, "traceloop.entity.name"),
    arguments=("traceloop.entity.input", *conventions.SPANS.arguments),
    status=(*conventions.SPANS.status, "gen_ai.task.status"),
)
CONVENTION = Convention(
    dialect=DIALECT,
    table=SPANS,
    operation=("gen_ai.operation.name", _KIND, _REQUEST),
    words={
        "tool": "execute_tool",
        "agent": "invoke_agent",
        "workflow": "invoke_agent",
        "task": FRAME,
        "completion": "text_completion",
        "embedding": "embeddings",
    },
    marks=(*MARKS, *AMBIENT),
    otherwise=conventions.CONVENTION,
    above={aisdk.MARK: aisdk.CONVENTION},
)
_MCP = replace(CONVENTION, words={"tool": MCP_CALL, "server": MCP_SERVER})
"""Of its instrumentation of MCP, which tells of an agent's call once more."""


def convention_in(scope: str) -> Convention | None:
    """That of the spans in a scope which may have a mark of the conventions for generative AI before one of these."""
    if not scope.startswith(_SCOPES):
        return None
    return _MCP if scope == _MCP_SCOPE else CONVENTION
