"""The groups of a usage summary."""

from collections.abc import Sequence
from datetime import UTC, datetime

from audit_svc.errors import InvalidRequest
from audit_svc.ledger.steps import DAY_MS, HOUR_MS

MAX_GROUPS = 8
LABEL = "label:"
"""The prefix of a label's key."""
WHO = ("principal", "agent", "source", "mcp_server")
"""Dimensions of rows that no rollup has. There are sums by each of them alone: see audit_svc.sql.usage.named_usage."""
DIMENSIONS = ("session", "recorded_by", "engine", "model", "tool", "outcome", *WHO, "hour", "day")

PERIODS = {"hour": (HOUR_MS, "%Y-%m-%dT%H:00Z"), "day": (DAY_MS, "%Y-%m-%d")}
"""The dimensions that are periods: their milliseconds, and the format of their start."""


def check_groups(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each of DIMENSIONS or label:KEY.

    Raises:
        InvalidRequest: one is neither, one comes twice, or they are too many.
    """
    for name in names:
        if name not in DIMENSIONS and not (name.startswith(LABEL) and 0 < len(name) - len(LABEL) <= 64):
            known = ", ".join(DIMENSIONS)
            raise InvalidRequest(f"group_by has an entry that is none of {known} or label:KEY", "group_by")
    if len(names) > MAX_GROUPS:
        raise InvalidRequest(f"group_by has more than {MAX_GROUPS} entries", "group_by")
    if len(set(names)) < len(names):
        raise InvalidRequest("group_by has an entry twice", "group_by")
    return tuple(names)


def group_name(dimension: str, value: int | str) -> str:
    """A group's value in a message: the start of a period in UTC, else the value itself."""
    if dimension not in PERIODS:
        return str(value)
    return datetime.fromtimestamp(int(value) / 1000, UTC).strftime(PERIODS[dimension][1])


def group_value(dimension: str, name: str) -> int | str:
    """The value that group_name() named."""
    if dimension not in PERIODS:
        return name
    return int(datetime.strptime(name, PERIODS[dimension][1]).replace(tzinfo=UTC).timestamp()) * 1000
