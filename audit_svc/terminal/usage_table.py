"""How usage looks on a terminal."""

from collections.abc import Iterable, Iterator, Sequence

from google.protobuf.descriptor import FieldDescriptor
from onrecord.audit.v1 import questions_pb2

from audit_svc.terminal.rows import cost_of
from audit_svc.terminal.running import size
from service_kit.printable import printable
from service_kit.terminal.printing import Table, Text, duration

MAX_INT64 = 2**63 - 1
EXACT_MS = 32
"""Percentiles of durations below are exact."""


def usage_table(names: Sequence[str], groups: Iterable[questions_pb2.UsageGroup]) -> Table:
    """What each group took."""
    numbers = (
        "tool calls",
        "errors",
        "exit≠0",
        "HTTP≥400",
        "p50",
        "p95",
        "p99",
        "results",
        "model requests",
        "tokens in",
        "tokens out",
        "cost",
    )
    least = (
        "HTTP≥400",
        "exit≠0",
        "results",
        "p50",
        "p99",
        "p95",
        "tokens in",
        "tokens out",
        "errors",
        "model requests",
    )
    ids = [name for name in names if name == "session"]
    table = Table(*names, *numbers, numbers=numbers, least=least, ids=ids)
    groups = list(groups)
    for group in [*groups, *([_total(groups)] if len(groups) > 1 and names else [])]:
        table.add_row(
            *(printable(value) or "-" for value in group.values),
            f"{group.tool_calls:,}",
            Text(f"{group.tool_call_errors:,}", style="red" if group.tool_call_errors else ""),
            f"{group.nonzero_exits:,}",
            f"{group.http_errors:,}",
            *_quantiles(group),
            size(group.result_bytes),
            f"{group.usage.requests:,}",
            f"{group.usage.input_tokens:,}",
            f"{group.usage.output_tokens:,}",
            cost_of(group.usage),
        )
    return table


def _total(groups: Sequence[questions_pb2.UsageGroup]) -> questions_pb2.UsageGroup:
    """The sums of all; percentiles have none."""
    total = questions_pb2.UsageGroup(values=["total", *[" "] * (len(groups[0].values) - 1)])
    pairs = [(total, groups), (total.usage, [group.usage for group in groups])]
    for summed, parts in pairs:
        for field in summed.DESCRIPTOR.fields:
            if field.type == FieldDescriptor.TYPE_INT64:
                setattr(summed, field.name, min(MAX_INT64, sum(getattr(part, field.name) for part in parts)))
    return total


def _quantiles(row: questions_pb2.UsageGroup) -> Iterator[str]:
    for name in ("duration_p50_ms", "duration_p95_ms", "duration_p99_ms"):
        took = getattr(row, name)
        # Longer ones are known within 1/32 of themselves (UsageGroup), so that one may lie above the longest of them.
        yield ("~" * (took >= EXACT_MS) + duration(took)) if row.HasField(name) else "-"
