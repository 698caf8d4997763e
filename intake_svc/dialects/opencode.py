"""OpenCode: spans of the AI SDK. Each call and each request has an inner span and one around it; one of them counts.

Of the span around a call, Tool.execute, no more is read than the call's id and the message that asked for it.
"""

from collections.abc import Iterable
from dataclasses import replace

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from intake_svc.dialects import aisdk
from intake_svc.dialects.base.logs import Kind
from intake_svc.dialects.base.showing import Agent
from intake_svc.dialects.base.spans import kind_by, read_each
from intake_svc.dialects.base.table import Dialect
from intake_svc.dialects.reading import Reading
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
SPANS = replace(
    aisdk.SPANS,
    session=("session.id",),
    turn=("message.id",),
    call_id=("ai.toolCall.id", "tool.call_id"),
    arguments=("ai.toolCall.args",),
)
_KINDS = {
    "ai.toolCall": Kind.RESULT,
    "ai.streamText.doStream": Kind.REQUEST,
    "ai.generateText.doGenerate": Kind.REQUEST,
    "ai.streamObject.doStream": Kind.REQUEST,
    "ai.generateObject.doGenerate": Kind.REQUEST,
}


def read_spans(spans: Iterable[Span], agent: Agent) -> Reading:
    """The rows of spans."""
    return read_each(DIALECT, SPANS, spans, agent, kind_by(_KINDS, SPANS))
