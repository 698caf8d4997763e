"""The names and words of OpenTelemetry's conventions for generative AI, and those of frameworks that have their own.

https://github.com/open-telemetry/semantic-conventions-genai is the source of the former; they are in development and
move. What a name is whose is said beside it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from intake_svc.dialects.base.table import Attributes, Dialect, Names, Table

MARKS = ("gen_ai.operation.name", "mcp.method.name")
"""Of which the conventions ask one of each span."""
_SPRING_KIND = "spring.ai.kind"
"""What Spring AI's spans are of, where their operation is `framework`."""
_CREWAI_EVENT = ("crewai.event_name",)
"""What CrewAI's spans are of, some of which tell of a call once more."""
TOOL_MARK = "gen_ai.tool.name"
"""What marks a call whose span has neither: pydantic-ai's, up to version 2 of its own format."""
HAYSTACK_MARK = "haystack.tool.name"
"""What marks Haystack's calls, and its checks whether a person allows one."""
_HAYSTACK_CHECK = ("haystack.agent.hook.human_in_the_loop.strategy.type",)
TOKEN_MARKS = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
"""Of which a request has one whose span has none of these: ADK's, before it said its operation."""

DIALECT = Dialect(engine="genai", agent="genai")
SPANS = Table(
    kind=(*MARKS, _SPRING_KIND, *_CREWAI_EVENT, *_HAYSTACK_CHECK),
    session=(
        "gen_ai.conversation.id",
        "session.id",
        "gcp.vertex.agent.session_id",  # ADK's
        "spring.ai.chat.client.conversation.id",
        "copilot_chat.chat_session_id",  # of a call of Copilot in VS Code, whose requests have the first
    ),
    turn=("gen_ai.agent.call.id",),
    tool=(TOOL_MARK, "spring.ai.tool.definition.name", HAYSTACK_MARK),
    call_id=(
        "gen_ai.tool.call.id",
        "gen_ai.tool_call.id",  # ADK's of Java
        "spring.ai.tool.call.id",
        "haystack.tool.call.id",
    ),
    arguments=(
        "gen_ai.tool.call.arguments",
        "tool_arguments",
        "spring.ai.tool.call.arguments",
        "haystack.agent.step.tool.input",
    ),
    status=("gen_ai.tool.status",),
    decision=("haystack.agent.hook.human_in_the_loop.strategy.decision",),
    error_type=("error.type",),
    exit_code=("process.exit.code", "ag2.code_execution.exit_code"),
    model=("gen_ai.response.model",),
    requested_model=("gen_ai.request.model",),
    provider=("gen_ai.provider.name", "gen_ai.system"),
    input_tokens=TOKEN_MARKS,
    output_tokens=("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    cached_tokens=(
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.details.cache_read_tokens",  # pydantic-ai's, up to version 1
        "gen_ai.usage.cached_input_tokens",  # Mastra's, in its first versions
    ),
    cache_write_tokens=(
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.cache_write_input_tokens",
        "gen_ai.usage.details.cache_write_tokens",
    ),
    reasoning_tokens=(
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "gen_ai.usage.reasoning_tokens",  # Mastra's
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """How spans say what these conventions say, be it by other names and words."""

    dialect: Dialect
    table: Table
    operation: Names
    """The attributes that may have the operation."""
    words: Mapping[str, str] = field(default_factory=dict)
    """The operations by their words, as these conventions name them."""
    marks: tuple[str, ...] = ()
    """Attributes of which a span has one, or follows another convention."""
    otherwise: "Convention | None" = None
    """That other one, whose attributes the table names too."""
    above: "Mapping[str, Convention]" = field(default_factory=dict)
    """By attributes that the table names: the conventions that a span with one of them follows, the first one first."""

    def followed(self, has: Callable[[Iterable[str]], bool]) -> "Convention":
        """The convention of a span. has: whether the span has any of some attributes."""
        if has(self.above):
            return next(convention for mark, convention in self.above.items() if has((mark,)))
        return self.otherwise if self.otherwise and not has(self.marks) else self


FRAME = "invoke_workflow"
"""The operation of what is around calls and requests, and is none."""
_EXECUTE_CODE = "execute_code"
"""AG2's operation of a call that names no tool."""
CONVENTION = Convention(
    dialect=DIALECT,
    table=SPANS,
    operation=(_SPRING_KIND, *MARKS[:1]),
    words={
        "call_llm": "generate_content",  # ADK's of Java
        "chat.completions": "chat",  # Semantic Kernel's
        "text.completions": "text_completion",
        "embedding": "embeddings",  # Spring AI's
        "tool_call": "execute_tool",  # of Spring AI's kinds
        "chat_client": "invoke_agent",
        "advisor": FRAME,
        "vector_store": "retrieval",
        "mcp_server_tool_call": FRAME,  # its client tells of the call
        _EXECUTE_CODE: "execute_tool",
    },
)

STRANDS, _ADK = "strands-agents", "gcp.vertex.agent"
_NOT_SPECIFIED = "<not specified>"
"""ADK's id of a call whose result has none."""
MCP_METHOD = MARKS[1:]
MCP_CALL = "tools/call"
MCP_SERVER = "mcp.server"
"""The operation of a span around what an MCP server does for its client."""
NO_TOOL = "(merged tools)"
"""ADK's name for a span that has the answers of calls that ran side by side, beside the span of each."""
_CREWAI_OPERATIONS = {
    "tool_failure_detected": FRAME,
    **dict.fromkeys((f"mcp_tool_execution_{end}" for end in ("started", "completed", "failed")), MCP_CALL),
}


def operation_of(attributes: Attributes, convention: Convention) -> str:
    """The operation of a span, in these conventions' words or by the name of a tool; empty where it says neither."""
    if known := _CREWAI_OPERATIONS.get(attributes.text(_CREWAI_EVENT)):
        return known
    if told := attributes.text(convention.operation):
        return convention.words.get(told, told)
    if attributes.text(MCP_METHOD):
        return ""
    is_haystacks = attributes.have((HAYSTACK_MARK,)) and not attributes.have(_HAYSTACK_CHECK)
    if is_haystacks or attributes.text(convention.table.tool[:1]):
        return "execute_tool"
    is_adks = attributes.text(SPANS.provider) == _ADK and attributes.have(SPANS.requested_model)
    return "generate_content" if is_adks and attributes.have(SPANS.input_tokens) else ""


def mend(attributes: Attributes, convention: Convention) -> None:
    """Takes away an id that is none, and adds a tool that the operation names."""
    if attributes.text(convention.table.call_id) == _NOT_SPECIFIED:
        attributes.drop(convention.table.call_id)
    if attributes.text(convention.operation) == _EXECUTE_CODE:
        attributes.add(convention.table.tool, _EXECUTE_CODE)
