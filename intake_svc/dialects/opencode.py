"""OpenCode: spans of the AI SDK. Each call and each request has an inner span and one around it; one of them counts."""

from collections.abc import Iterable

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from intake_svc.dialects.base.event import of_span
from intake_svc.dialects.base.logs import FAILED
from intake_svc.dialects.base.results import result_of
from intake_svc.dialects.base.rows import Rows
from intake_svc.dialects.base.showing import Agent
from intake_svc.dialects.base.table import Dialect, Table
from intake_svc.dialects.reading import Reading
from recording.calls import Failure
from recording.show import Show

SPAN_SCOPE = "opencode"

_FILE = {"filePath": Show.PATH}
DIALECT = Dialect(
    engine="opencode",
    agent="opencode",
    tools={
        "bash": {"command": Show.COMMAND, "timeout": Show.NUMBER, "workdir": Show.PATH},
        "read": {**_FILE, "offset": Show.NUMBER, "limit": Show.NUMBER},
        "write": _FILE,
        "edit": {**_FILE, "replaceAll": Show.NUMBER},
        "glob": {"pattern": Show.TEXT, "path": Show.PATH},
        "grep": {"pattern": Show.TEXT, "path": Show.PATH, "include": Show.TEXT},
        "list": {"path": Show.PATH},
        "webfetch": {"url": Show.URL, "format": Show.WORD, "timeout": Show.NUMBER},
    },
)
SPANS = Table(
    kind=("ai.operationId",),
    session=("session.id",),
    tool=("ai.toolCall.name",),
    call_id=("ai.toolCall.id",),
    arguments=("ai.toolCall.args",),
    model=("ai.response.model", "gen_ai.response.model"),
    requested_model=("ai.model.id", "gen_ai.request.model"),
    provider=("ai.model.provider",),
    input_tokens=("ai.usage.inputTokens", "gen_ai.usage.input_tokens"),
    output_tokens=("ai.usage.outputTokens", "gen_ai.usage.output_tokens"),
    cached_tokens=("ai.usage.cachedInputTokens", "ai.usage.inputTokenDetails.cacheReadTokens"),
    cache_write_tokens=("ai.usage.inputTokenDetails.cacheWriteTokens",),
    reasoning_tokens=("ai.usage.reasoningTokens", "ai.usage.outputTokenDetails.reasoningTokens"),
)
_REQUESTS = frozenset(
    ("ai.streamText.doStream", "ai.generateText.doGenerate", "ai.streamObject.doStream", "ai.generateObject.doGenerate")
)


def read_spans(spans: Iterable[Span], agent: Agent) -> Reading:
    """The rows of spans."""
    rows = Rows(DIALECT, SPANS, agent)
    for span in spans:
        event = of_span(span, SPANS)
        match event.attributes.text(SPANS.kind):
            case "ai.toolCall":
                rows.call(
                    event,
                    result_of(SPANS, event, failed=event.failed, error=event.error_type),
                    scope=rows.scope(event),
                    arguments=event.attributes.json(SPANS.arguments),
                )
            case request if request in _REQUESTS:
                rows.cost(event, scope=rows.scope(event), failure=Failure(FAILED) if event.failed else None)
            case _:
                rows.ignore()
    return rows.reading()
