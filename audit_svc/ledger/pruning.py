"""Pruning: the times that a ledger may be pruned to, and the progress of a prune."""

from dataclasses import dataclass

from onrecord.audit.v1 import administration_pb2

from audit_svc.errors import InvalidRequest
from audit_svc.ledger.steps import HOUR_MS


@dataclass(slots=True)
class PrunedCounts:
    """Counts of what was removed. cost_micros is in millionths of a US dollar."""

    tool_calls: int = 0
    errors: int = 0
    model_requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0
    sessions: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a prune. pruned_before is in milliseconds since 1970-01-01 UTC."""

    pruned_before: int
    removed: PrunedCounts
    done: bool
    held: int = 0
    """Tool calls, model requests and sessions that would have gone, and that legal holds kept."""


def whole_hour(before_ms: int, now_ms: int) -> int:
    """before_ms rounded down to a whole hour, so that an hour's summary goes with all of its rows or stays.

    Raises:
        InvalidRequest: it is no time that a ledger can be pruned to.
    """
    if before_ms <= 0:
        raise InvalidRequest(
            "created_before_ms is not set, or is not after 1970: say which time to prune to", "created_before_ms"
        )
    if before_ms > now_ms:
        raise InvalidRequest(
            "created_before_ms is in the future: what is not there yet cannot be pruned", "created_before_ms"
        )
    return before_ms - before_ms % HOUR_MS


def response_of(progress: Progress) -> administration_pb2.PruneResponse:
    """Progress as the wire has it."""
    return administration_pb2.PruneResponse(
        pruned_before_ms=progress.pruned_before,
        tool_calls=progress.removed.tool_calls,
        model_requests=progress.removed.model_requests,
        sessions=progress.removed.sessions,
        done=progress.done,
        held=progress.held,
    )
