"""Rollups: what was used in each period of the steps, kept by the writer in the transaction of the rows themselves.

For each of audit_svc.ledger.steps two tables (migration 0010), named by the step; begins_at is when the period began,
in milliseconds since 1970:

    tool_call_usage_hourly, ... by begins_at, engine, model, tool_name, outcome ('' for null):
        calls, errors (error is set), nonzero_exits, http_errors (statuses from 400), result_bytes,
        duration_ms (the sum), durations (the histogram, without calls of WITHOUT_DURATION: see
        audit_svc.ledger.histogram)
    request_usage_hourly, ... by begins_at, engine, model:
        requests, errors, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens,
        cost_micros (what is known), unpriced_requests

Calls of shadow engines have an outcome of their own (dry_run); their model requests cost money, and are counted. A row
adds at most 2**36 - 1 to a sum. The tables of all steps say the same, so a range is read from the long periods that lie
in it and shorter ones at its ends.
"""

from dataclasses import dataclass

from audit_svc.ledger.steps import STEPS, Step
from audit_svc.ledger.tables import WITHOUT_DURATION

HAS_NO_DURATION = "outcome IN ({})".format(", ".join(f"'{name}'" for name in WITHOUT_DURATION))
"""Of a call, as a condition of SQL."""
CALL_KEY = ("begins_at", "engine", "model", "tool_name", "outcome")
CALL_SUMS = ("calls", "errors", "nonzero_exits", "http_errors", "result_bytes", "duration_ms", "durations")
REQUEST_KEY = ("begins_at", "engine", "model")
REQUEST_SUMS = (
    "requests",
    "errors",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "reasoning_tokens",
    "cost_micros",
    "unpriced_requests",
)
KINDS = {"tool_call_usage": (CALL_KEY, CALL_SUMS), "request_usage": (REQUEST_KEY, REQUEST_SUMS)}


@dataclass(frozen=True, slots=True)
class Rollup:
    """One of the tables."""

    kind: str
    step: Step

    @property
    def name(self) -> str:
        """Of the table."""
        return f"{self.kind}_{self.step.name}"

    @property
    def key(self) -> tuple[str, ...]:
        """Columns, begins_at first."""
        return KINDS[self.kind][0]

    @property
    def sums(self) -> tuple[str, ...]:
        """Columns."""
        return KINDS[self.kind][1]


ROLLUPS = tuple(Rollup(kind, step) for kind in KINDS for step in STEPS)
