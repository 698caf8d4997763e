"""Dialects: the names by which each producer of OpenTelemetry says what an audit row or a cost row says.

One module a producer, with its table from attribute to field. An attribute that no table names is never read, nor are
names and status messages of spans, bodies of log records, and links.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import structlog
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from intake_svc.dialects import (
    aisdk,
    claude,
    codex,
    conventions,
    copilot,
    gemini,
    genai,
    litellm,
    opencode,
    openinference,
    traceloop,
)
from intake_svc.dialects.base.rows import CUT
from intake_svc.dialects.base.showing import Agent, agent_of, where
from intake_svc.dialects.base.table import BRANCH, REPOSITORY, Attributes, Dialect
from intake_svc.dialects.reading import Reading, SequenceNumber, joined
from recording.redact import show_fields

__all__ = ["DIALECTS", "Reading", "SequenceNumber", "joined", "read_logs", "read_spans"]

DIALECTS: tuple[Dialect, ...] = (
    claude.DIALECT,
    codex.DIALECT,
    gemini.GEMINI,
    gemini.QWEN,
    opencode.DIALECT,
    aisdk.DIALECT,
    copilot.DIALECT,
    conventions.DIALECT,
    traceloop.DIALECT,
    openinference.DIALECT,
    litellm.DIALECT,
)
for _dialect in DIALECTS:
    show_fields({f"{_dialect.engine}:{tool}": shown for tool, shown in _dialect.tools.items()})

NO_PRODUCER = "no dialect is known by which the producer speaks"
FAULTY = "its reading failed by a fault of ours"

log = structlog.get_logger(__name__)

_T = TypeVar("_T", Span, LogRecord, tuple[bool, Span], tuple[conventions.Convention, Span])
_Reader = Callable[[Iterable[_T], Agent], Reading]
_NAME, _VERSION = ("service.name",), ("service.version",)
_RESOURCE = frozenset(_NAME + _VERSION + REPOSITORY + BRANCH)

_PLACES = frozenset(REPOSITORY + BRANCH)

_SPAN_SCOPES: dict[str, tuple[Dialect, _Reader[Span]]] = {
    claude.SPAN_SCOPE: (claude.DIALECT, claude.read_spans),
    copilot.SPAN_SCOPE: (copilot.DIALECT, copilot.read_spans),
    copilot.VS_CODE_SCOPE: (copilot.DIALECT, copilot.read_spans),
    opencode.SPAN_SCOPE: (opencode.DIALECT, opencode.read_spans),
    litellm.SPAN_SCOPE: (litellm.DIALECT, litellm.read_spans),
}
_OPENINFERENCE, _UNREAD = "openinference", "unread"
_ABOVE_GENAI = {aisdk.MARK: aisdk.CONVENTION, **dict.fromkeys(traceloop.MARKS, traceloop.CONVENTION)}
_GENAI = replace(
    conventions.CONVENTION,
    table=replace(conventions.SPANS, kind=(*conventions.SPANS.kind, *_ABOVE_GENAI)),
    above=_ABOVE_GENAI,
)
_RANKED: tuple[tuple[conventions.Convention | str, Iterable[str]], ...] = (
    (aisdk.CONVENTION, (aisdk.MARK,)),
    (traceloop.CONVENTION, traceloop.MARKS),
    (_GENAI, (*conventions.MARKS, conventions.TOOL_MARK)),
    (_OPENINFERENCE, (openinference.MARK,)),
    # of agents by conventions that no dialect is for: beside the spans of others they are no less a hole
    (_UNREAD, ("langfuse.observation.type", "mlflow.spanType", "lmnr.span.type")),
    (traceloop.CONVENTION, traceloop.AMBIENT),
    (_GENAI, (*conventions.TOKEN_MARKS, conventions.HAYSTACK_MARK)),
    ("", ()),
)
"""The conventions for programs of any kind, each with what marks its spans. Of a span's marks the first here decides,
in whichever order they come: Traceloop and processors of spans add to what another library has said."""
_RANKS = {mark: rank for rank, (_, marks) in enumerate(_RANKED) for mark in marks}
_BELOW_GENAI, _UNMARKED = _RANKS[openinference.MARK], len(_RANKED) - 1
_LOG_SCOPES: dict[str, tuple[Dialect, _Reader[LogRecord]]] = {
    claude.LOG_SCOPE: (claude.DIALECT, claude.read_logs),
    gemini.GEMINI_SCOPE: (gemini.GEMINI, gemini.read_gemini_logs),
    gemini.QWEN_SCOPE: (gemini.QWEN, gemini.read_qwen_logs),
}
_SPANS_NOT_READ = frozenset((gemini.GEMINI_SCOPE, gemini.QWEN_SCOPE))
"""Scopes whose log records tell all that their spans do."""
_LOGS_NOT_READ = frozenset((copilot.VS_CODE_SCOPE,))
"""Scopes whose spans tell all that their log records do, and which always send both."""


def read_spans(resource_spans: ResourceSpans) -> Reading:
    """The rows of the spans of one resource. Never raises, whatever was sent."""
    resource = Attributes(resource_spans.resource.attributes, _RESOURCE)
    name, version = resource.text(_NAME), resource.text(_VERSION)
    readings: list[Reading] = []
    by_genai: list[tuple[conventions.Convention, Span]] = []
    by_openinference: list[tuple[bool, Span]] = []
    others = 0
    for scope in resource_spans.scope_spans:
        scope_name = scope.scope.name
        if scope_name in _SPANS_NOT_READ or scope_name.startswith(codex.SCOPE):
            readings.append(Reading(ignored=len(scope.spans)))
        elif known := _SPAN_SCOPES.get(scope_name):
            readings.append(_read(*known, scope.spans, name, version))
        elif scope_name.startswith(openinference.SPAN_SCOPE):
            is_agents_sdk = scope_name == openinference.SDK_SCOPE
            by_openinference += [(is_agents_sdk, span) for span in scope.spans]
        else:
            theirs = traceloop.convention_in(scope_name)
            for span in scope.spans:
                convention = _convention(span)
                if isinstance(convention, conventions.Convention):
                    is_ai_sdk = convention is aisdk.CONVENTION
                    by_genai.append((convention if is_ai_sdk or not theirs else theirs, span))
                elif convention == _OPENINFERENCE:
                    by_openinference.append((False, span))
                elif convention == _UNREAD:
                    readings.append(Reading(not_understood=(NO_PRODUCER,)))
                elif span.dropped_attributes_count:
                    readings.append(Reading(not_understood=(CUT,)))
                else:
                    others += 1

    def read_genai(items: Iterable[tuple[conventions.Convention, Span]], _: Agent) -> Reading:
        return genai.read(items, lambda dialect: agent_of(dialect, name, version))

    # of all scopes together: a client's span is of another than the agent's span around it
    if by_genai:
        readings.append(_read(conventions.DIALECT, read_genai, by_genai, name, version, _dialect_of))
    if by_openinference:
        readings.append(_read(openinference.DIALECT, openinference.read_spans, by_openinference, name, version))
    return _with_others(_located(joined(readings), resource), others)


def read_logs(resource_logs: ResourceLogs) -> Reading:
    """The rows of the log records of one resource. Never raises, whatever was sent."""
    resource = Attributes(resource_logs.resource.attributes, _RESOURCE)
    name, version = resource.text(_NAME), resource.text(_VERSION)
    readings: list[Reading] = []
    others = 0
    for scope in resource_logs.scope_logs:
        if scope.scope.name in _LOGS_NOT_READ:
            readings.append(Reading(ignored=len(scope.log_records)))
        elif scope.scope.name.startswith(codex.SCOPE):
            readings.append(_read(codex.DIALECT, codex.read_logs, scope.log_records, name, version))
        elif known := _LOG_SCOPES.get(scope.scope.name):
            readings.append(_read(*known, scope.log_records, name, version))
        else:
            others += len(scope.log_records)
    return _with_others(_located(joined(readings), resource), others)


def _convention(span: Span) -> conventions.Convention | str:
    """The convention for programs of any kind that a span follows.

    `unread` for one that no dialect is for; empty for none. Of those that genai.read reads it is the
    first that has a mark: which is above that is found there, where the attributes are read anyway.
    """
    best = _UNMARKED
    for item in span.attributes:
        if (rank := _RANKS.get(item.key, best)) < best:
            best = rank
            if best < _BELOW_GENAI:
                break
    return _RANKED[best][0]


def _dialect_of(item: tuple[conventions.Convention, Span]) -> Dialect:
    """Whose a span is, of those that genai.read reads."""
    convention, span = item
    keys = {each.key for each in span.attributes}
    return convention.followed(lambda names: not keys.isdisjoint(names)).dialect


def _located(reading: Reading, resource: Attributes) -> Reading:
    """With where the sessions are, as the resource says. What a span or a record says of itself comes behind."""
    latest: dict[tuple[str, str], int] = {}
    if resource.have(_PLACES):
        rows: list[Any] = [*reading.calls, *reading.costs, *reading.intents]
        for row in rows:
            key = row.session_id, row.engine
            latest[key] = max(latest.get(key, 0), row.created_at_ms)
    labels = where(resource, [(*key, at_ms) for key, at_ms in latest.items()])
    return replace(reading, labels=(*labels, *reading.labels)) if labels else reading


def _read(
    dialect: Dialect,
    read: _Reader[_T],
    items: Sequence[_T],
    name: str,
    version: str,
    dialect_of: Callable[[_T], Dialect] | None = None,
) -> Reading:
    """The reading of items. dialect_of: whose a fault is, where items of several dialects are read together."""
    try:
        return read(items, agent_of(dialect, name, version))
    except Exception as error:  # noqa: BLE001 - only its type is told: a traceback may quote content
        engines = {(dialect_of(item) if dialect_of else dialect).engine for item in items}
        log.error("dialects.failed", dialect=", ".join(sorted(engines)), error=type(error).__name__)
    one_by_one = []
    for item in items:
        try:
            one_by_one.append(read((item,), agent_of(dialect, name, version)))
        except Exception:  # noqa: BLE001 - one bad item never costs what is around it
            engine = (dialect_of(item) if dialect_of else dialect).engine
            one_by_one.append(Reading(not_understood=(f"{engine}: {FAULTY}",)))
    return joined(one_by_one)


def _with_others(reading: Reading, others: int) -> Reading:
    """What no dialect reads: of no interest beside what one does, and else not understood."""
    if not others:
        return reading
    if reading != Reading():
        return replace(reading, ignored=reading.ignored + others)
    return Reading(not_understood=(NO_PRODUCER,) * others)
