"""Usage in groups over a time, with percentiles, and beside it that of another time as long."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from onrecord.audit.v1 import questions_pb2
from onrecord.common.v1 import common_pb2
from starlette.responses import Response

from audit_svc.ledger.groups import LABEL, group_name
from audit_svc.ledger.steps import DAY_MS, HOUR_MS
from audit_svc.ui.asked import Asked, WrongAddress
from audit_svc.ui.charts import Chart, Point, chart
from audit_svc.ui.pages.figures import GROUPS, first_usage, usage
from audit_svc.ui.pages.sessions import labels_of
from audit_svc.ui.texts import link, money

BY = {
    "tool": "tool",
    "principal": "person",
    "agent": "agent",
    "engine": "engine",
    "model": "model",
    "outcome": "outcome",
    "mcp_server": "MCP server",
    "label": "label",
}
COMPARE = {
    "": "nothing",
    "before": "the time just before",
    "week": "the same time a week before",
    "month": "the same time 28 days before",
    "from": "the time from",
}
MAX_DAYS = 400
HOURLY_DAYS = 2
SHOWN = 100
FIELDS = ("by", "key", "since", "until", "compare", "against", "principal", "agent", "tool", "model", "label")


@dataclass(frozen=True, slots=True)
class Row:
    """A group, and what it was in the other time; None where that has none, or there is no other time."""

    name: str
    now: questions_pb2.UsageGroup
    before: questions_pb2.UsageGroup | None


async def show(asked: Asked) -> Response:
    """The page. Raises WrongAddress, NotAnswered."""
    given = {name: asked.text(name) for name in FIELDS} | {"by": asked.text("by", "tool")}
    since, until = asked.moment("since", "7d") or 0, asked.moment("until") or asked.now_ms
    if not 0 < until - since <= MAX_DAYS * DAY_MS:
        raise WrongAddress(f"a time of at most {MAX_DAYS} days is shown, and it ends after it begins")
    dimension, step = _dimension(given), "hour" if until - since <= HOURLY_DAYS * DAY_MS else "day"
    wanted = _conditions(given)
    other = _other(asked, given, since, until)
    (now, is_cut), by_time, (before, is_before_cut) = await asyncio.gather(
        _costliest(asked, dimension, SHOWN, wanted, since, until),
        usage(asked, [step], created_from_ms=since, created_before_ms=until, **wanted),
        _costliest(asked, dimension, GROUPS, wanted, *other) if other else _nothing(),
    )
    rows = _rows(now, before, is_cut=is_cut)
    return asked.page(
        "usage.html",
        given=given,
        names=BY,
        comparisons=COMPARE,
        since=since,
        until=until,
        other=other,
        rows=rows[:SHOWN],
        is_cut=is_cut or len(rows) > SHOWN,
        is_before_cut=is_before_cut,
        charts=_charts(by_time, since, until, step),
    )


def _dimension(given: dict[str, str]) -> str:
    if given["by"].startswith(LABEL):
        key = given["by"].removeprefix(LABEL) or "repository"
        raise WrongAddress(f"a label is asked for by two fields: {link('', by='label', key=key).removeprefix('?')}")
    if given["by"] not in BY:
        raise WrongAddress(f"by is one of {', '.join(BY)}")
    if given["by"] != "label":
        return given["by"]
    if not 0 < len(given["key"]) <= 64:
        raise WrongAddress("say which label: key is its name, such as repository")
    return LABEL + given["key"]


def _conditions(given: dict[str, str]) -> dict[str, Any]:
    return {
        "principal": given["principal"],
        "agent": common_pb2.Software(name=given["agent"]) if given["agent"] else None,
        "tool_name": given["tool"],
        "model": given["model"],
        "labels": labels_of([given["label"]] if given["label"] else []),
    }


def _other(asked: Asked, given: dict[str, str], since: int, until: int) -> tuple[int, int] | None:
    """The time that is compared with, as long as this one."""
    back = {"before": until - since, "week": 7 * DAY_MS, "month": 28 * DAY_MS}
    if given["compare"] not in COMPARE:
        raise WrongAddress(f"compare is one of {', '.join(name for name in COMPARE if name)}")
    if given["compare"] == "from":
        begins = asked.moment("against")
        if begins is None:
            raise WrongAddress("say from when the other time is: against is a day such as 2026-11-01")
        return begins, begins + until - since
    if not given["compare"]:
        return None
    return max(0, since - back[given["compare"]]), max(1, until - back[given["compare"]])


async def _costliest(
    asked: Asked, dimension: str, size: int, wanted: dict[str, Any], since: int, until: int
) -> tuple[list[questions_pb2.UsageGroup], bool]:
    """At most size groups, those that cost and did most first, and whether there are more."""
    order = questions_pb2.USAGE_ORDER_COST
    return await first_usage(asked, [dimension], size, order, created_from_ms=since, created_before_ms=until, **wanted)


async def _nothing() -> tuple[list[questions_pb2.UsageGroup], bool]:
    return [], False


def _rows(
    now: Iterable[questions_pb2.UsageGroup], before: Iterable[questions_pb2.UsageGroup], *, is_cut: bool
) -> list[Row]:
    """Groups in their order, then those of the other time alone. is_cut: whether there are more than in now."""
    then = {group.values[0]: group for group in before}
    rows = [Row(group.values[0], group, then.pop(group.values[0], None)) for group in now]
    only_then = {} if is_cut else then
    return rows + [Row(name, questions_pb2.UsageGroup(values=[name]), group) for name, group in only_then.items()]


def _charts(groups: Sequence[questions_pb2.UsageGroup], since: int, until: int, step: str) -> list[Chart]:
    length = HOUR_MS if step == "hour" else DAY_MS
    found = {group.values[0]: group for group in groups}
    names = [group_name(step, at) for at in range(since - since % length, until, length)]
    series = [(name, found.get(name, questions_pb2.UsageGroup())) for name in names]
    calls, spent, tokens = [], [], []
    for name, group in series:
        label = name.replace("T", " ").replace("Z", " UTC")
        told = f"{group.tool_calls:,} calls" + (
            f", {group.tool_call_errors:,} failed" if group.tool_call_errors else ""
        )
        calls.append(Point(label, group.tool_calls - group.tool_call_errors, group.tool_call_errors, told))
        spent.append(Point(label, group.usage.known_cost_micros, told=money(group.usage.known_cost_micros)))
        both = group.usage.input_tokens + group.usage.output_tokens
        tokens.append(Point(label, both, told=f"{both:,} tokens"))
    by = f"by {step}"
    return [chart(f"Tool calls {by}", calls), chart(f"Spent {by}", spent), chart(f"Tokens {by}", tokens)]
