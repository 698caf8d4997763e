"""The trace that a call belongs to, as its caller tells it by W3C's headers `traceparent` and `tracestate`."""

import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_MAX_TRACESTATE_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class TraceContext:
    """What a caller said of its trace. Empty texts where it said nothing, or what is no traceparent."""

    traceparent: str = ""
    tracestate: str = ""

    @property
    def trace_id(self) -> str:
        """32 lower-case hexadecimal digits, or empty."""
        return self.traceparent[3:35]


NO_TRACE = TraceContext()

CALLERS_TRACE: ContextVar[TraceContext] = ContextVar("callers_trace", default=NO_TRACE)
"""The trace of the call that is being handled. Tasks that a handler starts inherit it."""


def read_trace_context(metadata: Iterable[tuple[str, str | bytes]]) -> TraceContext:
    """The trace that a call's metadata tell. What is malformed counts as not told, as W3C wants it."""
    told = {key: value for key, value in metadata if key in {"traceparent", "tracestate"} and isinstance(value, str)}
    traceparent = told.get("traceparent", "").strip()
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return NO_TRACE
    version, trace_id, parent_id, more = match.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(parent_id, 16):
        return NO_TRACE
    return TraceContext(traceparent, told.get("tracestate", "")[:_MAX_TRACESTATE_CHARACTERS])
