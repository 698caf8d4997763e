"""How calls ended, as far as agents say."""

import re

from onrecord.common.v1 import common_pb2

from intake_svc.dialects.base.event import Event
from intake_svc.dialects.base.showing import error_type
from intake_svc.dialects.base.table import Table
from recording.calls import ToolResult

_TIMED_OUT = re.compile(r"(?:.*[._])?(?:\w*timeout\w*|timed_out|deadline_exceeded)", re.IGNORECASE)
_CANCELLED = re.compile(r"(?:.*[._])?(?:\w*cancell?ed\w*|\w*abort(?:ed)?(?:error)?|\w*interrupt(?:ed)?)", re.IGNORECASE)


def result_of(
    table: Table, event: Event, *, failed: bool, error: str = "", outcome: common_pb2.Outcome.ValueType | None = None
) -> ToolResult:
    """How the call of an event ended.

    Args:
        table: the attributes of the event.
        event: the span or the record.
        failed: whether it failed.
        error: the type of its error, by which a time limit and a cancellation are told.
        outcome: how it ended, where that is known better.
    """
    attributes = event.attributes
    told = error_type(error)
    if outcome is None:
        outcome = _outcome(told) if failed else common_pb2.OUTCOME_SUCCEEDED
    return ToolResult(
        text="",
        outcome=outcome,
        error=f"the agent tells of {told}" if failed else None,
        exit_code=attributes.signed(table.exit_code),
        result_bytes=attributes.number(table.result_bytes),
        result_truncated=attributes.flag(table.truncated) or False,
        started_at_ms=event.began_ms,
        duration_ms=event.duration_ms,
    )


def unknown_end(event: Event) -> ToolResult:
    """The result of a call of which the agent does not say how it ended: never that it succeeded."""
    return ToolResult(
        text="",
        outcome=common_pb2.OUTCOME_INTERRUPTED,
        error="the agent does not say how the call ended",
        result_bytes=None,
        started_at_ms=event.began_ms,
        duration_ms=event.duration_ms,
    )


def refused(event: Event) -> ToolResult:
    """The result of a call that was refused, so that it never ran."""
    return ToolResult(text="", outcome=common_pb2.OUTCOME_DENIED, started_at_ms=event.began_ms)


def _outcome(error: str) -> common_pb2.Outcome.ValueType:
    if _TIMED_OUT.fullmatch(error):
        return common_pb2.OUTCOME_TIMED_OUT
    return common_pb2.OUTCOME_CANCELLED if _CANCELLED.fullmatch(error) else common_pb2.OUTCOME_FAILED
