"""Sums of usage as pages show them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from onrecord.audit.v1 import questions_pb2

from audit_svc.ledger.groups import group_name
from audit_svc.ledger.steps import HOUR_MS
from audit_svc.ui.asked import Asked
from audit_svc.ui.charts import Chart, Point, chart
from audit_svc.ui.texts import FINE

GROUPS = 1000
"""Groups that one question brings: the most of a page of the RPC."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What a time took."""

    calls: int = 0
    failed: int = 0
    """Calls that did not do their work, but for those that were denied."""
    denied: int = 0
    nonzero_exits: int = 0
    http_errors: int = 0
    requests: int = 0
    failed_requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0
    unpriced: int = 0

    @property
    def tokens(self) -> int:
        """Read and written."""
        return self.input_tokens + self.output_tokens


async def usage(asked: Asked, group_by: list[str], **conditions: Any) -> list[questions_pb2.UsageGroup]:
    """At most GROUPS groups. Raises NotAnswered."""
    groups, _ = await first_usage(asked, group_by, GROUPS, **conditions)
    return groups


async def first_usage(
    asked: Asked,
    group_by: list[str],
    size: int,
    order: questions_pb2.UsageOrder.ValueType = questions_pb2.USAGE_ORDER_UNSPECIFIED,
    **conditions: Any,
) -> tuple[list[questions_pb2.UsageGroup], bool]:
    """At most size groups, the first in an order, and whether there are more. Raises NotAnswered."""
    request = questions_pb2.SummarizeUsageRequest(
        filter=questions_pb2.ToolCallFilter(**conditions), group_by=group_by, page_size=size, order=order
    )
    response: questions_pb2.SummarizeUsageResponse = await asked.ledger.ask("SummarizeUsage", request)
    return list(response.groups), bool(response.next_page_token)


def totals(groups: Iterable[questions_pb2.UsageGroup]) -> Totals:
    """The sums of groups whose last value is the outcome."""
    sums: dict[str, int] = dict.fromkeys(Totals.__dataclass_fields__, 0)
    for group in groups:
        ended = group.values[-1]
        sums["calls"] += group.tool_calls
        sums["denied"] += group.tool_calls if ended == "denied" else 0
        sums["failed"] += group.tool_calls if _failed(ended) else 0
        sums["nonzero_exits"] += group.nonzero_exits
        sums["http_errors"] += group.http_errors
        sums["requests"] += group.usage.requests
        sums["failed_requests"] += group.model_request_errors
        sums["input_tokens"] += group.usage.input_tokens
        sums["output_tokens"] += group.usage.output_tokens
        sums["cost_micros"] += group.usage.known_cost_micros
        sums["unpriced"] += group.usage.unpriced_requests
    return Totals(**sums)


def calls_by_hour(groups: Iterable[questions_pb2.UsageGroup], first_ms: int, hours: int) -> Chart:
    """Calls of hours, by groups of hour and outcome."""
    by_hour: dict[str, list[questions_pb2.UsageGroup]] = {
        group_name("hour", first_ms + hour * HOUR_MS): [] for hour in range(hours)
    }
    for group in groups:
        by_hour.setdefault(group.values[0], []).append(group)
    points = []
    for hour, found in sorted(by_hour.items()):
        sums = totals(found)
        bad = sums.failed + sums.denied
        told = f"{sums.calls:,} calls" + (f", {bad:,} failed or denied" if bad else "")
        points.append(Point(f"{hour[11:16]} UTC", sums.calls - bad, bad, told))
    return chart("Tool calls of the last 24 hours", points)


def _failed(outcome: str) -> bool:
    return outcome not in FINE and outcome not in {"", "denied"}
