"""Usage in groups is what a plain count of the rows says, for every group, filter and range."""

import random
from collections import Counter
from typing import Any

import pytest
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.ledger.groups import group_name
from audit_svc.ledger.steps import DAY_MS, HOUR_MS
from audit_svc.ledger.tables import OUTCOMES
from recording.durations import WITHOUT_DURATION
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, question, session_row
from tests.ledger.asking import all_pages, record

CHANCE = random.Random(11)
LABELS = {"s1": {"user": "ada", "team": "red"}, "s2": {"user": "ada"}, "s3": {"user": "bob"}, "s4": {}}
SESSIONS = [*LABELS, "s5"]
"""The last has no row of its own."""
KEYS = ["session", "engine", "model", "tool", "outcome", "hour", "day", "label:user", "label:team"]
NOON = NOW_MS // DAY_MS * DAY_MS - DAY_MS // 2


def times() -> int:
    edge = NOON - CHANCE.choice([0, HOUR_MS, DAY_MS // 2, DAY_MS, 9 * DAY_MS, 40 * DAY_MS])
    return edge + CHANCE.choice([-1, 0, 1, CHANCE.randrange(DAY_MS // 4)])


CALLS = [
    audit_row(
        session_id=CHANCE.choice(SESSIONS),
        engine=CHANCE.choice(["ollama", "openai"]),
        model=CHANCE.choice(["", "small", "large"]),
        tool_name=CHANCE.choice(["read", "bash"]),
        outcome=CHANCE.choice([1, 2, 4, 6, 8]),
        exit_code=CHANCE.choice([None, 0, 2]),
        http_status=CHANCE.choice([None, 200, 400]),
        error=CHANCE.choice([None, "broken"]),
        shadow=CHANCE.random() < 0.2,
        args_summary=CHANCE.choice(["notes", "other"]),
        duration_ms=CHANCE.choice([0, 31, 33, 5_000, CHANCE.randrange(100_000)]),
        created_at_ms=times(),
    )
    for _ in range(300)
]
COSTS = [
    cost_row(
        session_id=CHANCE.choice(SESSIONS),
        engine=CHANCE.choice(["ollama", "openai"]),
        model=CHANCE.choice(["", "small", "large"]),
        error=CHANCE.choice([None, "broken"]),
        shadow=CHANCE.random() < 0.2,
        input_tokens=CHANCE.randrange(1000),
        reasoning_tokens=CHANCE.randrange(10),
        cost_micros=CHANCE.choice([None, 0, 7]),
        created_at_ms=times(),
    )
    for _ in range(150)
]
FILTERS: list[dict[str, Any]] = [
    {},
    {"session_id": "s1"},
    {"engine": "ollama"},
    {"model": "small", "engine": "openai"},
    {"tool_name": "bash"},
    {"outcomes": [common_pb2.OUTCOME_FAILED, common_pb2.OUTCOME_DRY_RUN]},
    {"labels": {"user": "ada"}},
    {"labels": {"user": "ada", "team": "red"}, "created_from_ms": NOON - 10 * DAY_MS},
    {"created_from_ms": NOON - HOUR_MS, "created_before_ms": NOON + 1},
    {"created_from_ms": NOON - DAY_MS + 1234, "created_before_ms": NOON + 77_777},
    {"created_before_ms": NOON - 9 * DAY_MS},
    {"session_id": "nothing"},
    {"id": CALLS[3].id},
    {"id": COSTS[3].id, "session_id": COSTS[3].session_id},
    {"has_error": True},
    {"has_error": False, "engine": "ollama", "created_from_ms": NOON - DAY_MS},
    {"args_contain": "NOTES", "session_id": "s2"},
    {"clock_suspect": True},
    {"clock_suspect": False},
    {"shadow": True},
    {"shadow": False, "labels": {"user": "ada"}},
]
Group = tuple[str, ...]
GROUPS: list[list[str]] = [
    [],
    *([key] for key in KEYS),
    ["engine", "tool"],
    ["day", "label:user"],
    ["hour", "outcome", "model"],
]


def value_of(row: Any, key: str) -> str:
    is_call = isinstance(row, audit_pb2.AuditRow)
    if key.startswith("label:"):
        return LABELS.get(row.session_id, {}).get(key.removeprefix("label:"), "")
    if key in ("hour", "day"):
        length = HOUR_MS if key == "hour" else DAY_MS
        return group_name(key, row.created_at_ms // length * length)
    if key in ("tool", "outcome"):
        return "" if not is_call else row.tool_name if key == "tool" else OUTCOMES[row.outcome] or ""
    return str(row.session_id if key == "session" else getattr(row, key))


def matches(row: Any, filters: dict[str, Any]) -> bool:
    is_call = isinstance(row, audit_pb2.AuditRow)
    texts = {"id", "session_id", "engine", "model"} & filters.keys()
    return (
        all(getattr(row, name) == filters[name] for name in texts)
        and ("tool_name" not in filters or (is_call and row.tool_name == filters["tool_name"]))
        and ("outcomes" not in filters or (is_call and row.outcome in filters["outcomes"]))
        and ("has_error" not in filters or (is_call and row.HasField("error") == filters["has_error"]))
        and ("args_contain" not in filters or (is_call and filters["args_contain"].lower() in row.args_summary))
        and ("clock_suspect" not in filters or (is_call and not filters["clock_suspect"]))
        and row.shadow == filters.get("shadow", row.shadow)
        and filters.get("labels", {}).items() <= LABELS.get(row.session_id, {}).items()
        and filters.get("created_from_ms", 0) <= row.created_at_ms < filters.get("created_before_ms", 2**62)
    )


def counted(group_by: list[str], filters: dict[str, Any]) -> tuple[dict[Group, Counter[str]], dict[Group, list[int]]]:
    """For each group its counts, and its durations in order."""
    counts: dict[Group, Counter[str]] = {}
    durations: dict[Group, list[int]] = {}
    both: list[Any] = [*CALLS, *COSTS]
    for row in both:
        if not matches(row, filters):
            continue
        key = tuple(value_of(row, name) for name in group_by)
        count = counts.setdefault(key, Counter())
        if isinstance(row, audit_pb2.AuditRow):
            count.update(
                tool_calls=1,
                tool_call_errors=row.HasField("error"),
                nonzero_exits=row.exit_code != 0,
                http_errors=row.http_status >= 400,
                result_bytes=row.result_bytes,
            )
            if row.outcome not in WITHOUT_DURATION:
                durations.setdefault(key, []).append(row.duration_ms)
        else:
            names = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")
            count.update(
                {name: getattr(row, name) for name in names},
                requests=1,
                model_request_errors=row.HasField("error"),
                known_cost_micros=row.cost_micros,
                unpriced_requests=not row.HasField("cost_micros"),
            )
    return counts, durations


async def test_what_did_not_run_and_what_nobody_saw_end_is_in_no_percentile(ledger):
    """Else a tool whose gateways are killed, or whose calls are refused, seems to be quick."""
    took = {"SUCCEEDED": 100, "INTERRUPTED": 0, "DENIED": 600_000, "INVALID_CALL": 0, "DRY_RUN": 0}
    calls = [
        audit_row(
            session_id="s1",
            principal="ada",
            outcome=common_pb2.Outcome.Value(f"OUTCOME_{outcome}"),
            duration_ms=took_ms,
            created_at_ms=NOON + place * HOUR_MS,
        )
        for outcome, took_ms in took.items()
        for place in range(-4, 0)
    ]
    await record(ledger, tool_calls=calls, sessions=[session_row(id="s1", labels={"user": "ada"})])
    for group_by in ([], ["tool"], ["hour"], ["session"], ["principal"], ["label:user"], ["tool", "session"]):
        for filters in ({}, {"args_contain": "ls"}, {"created_from_ms": NOON - 3 * HOUR_MS - 1}):
            request = question(questions_pb2.SummarizeUsageRequest, group_by=group_by, **filters)
            for row in await all_pages(ledger.summarize_usage, request):
                assert row.tool_calls in (5, 15, 20), (group_by, filters)
                assert row.duration_p50_ms == row.duration_p99_ms == pytest.approx(100, rel=1 / 32), (group_by, filters)
    request = question(questions_pb2.SummarizeUsageRequest, group_by=["outcome"])
    found = {row.values[0]: row.HasField("duration_p95_ms") for row in await all_pages(ledger.summarize_usage, request)}
    assert found == {outcome.lower(): outcome == "SUCCEEDED" for outcome in took}


@pytest.mark.long
async def test_usage_is_what_a_plain_count_says(ledger):
    sessions = [session_row(id=name, labels=labels) for name, labels in LABELS.items()]
    # Some after the others, so that what is kept beside the rows is added to.
    await record(ledger, tool_calls=CALLS[:200], model_requests=COSTS[:50], sessions=sessions[:2])
    await record(ledger, tool_calls=CALLS[150:], model_requests=COSTS[50:], sessions=sessions)
    names = [
        field.name
        for field in questions_pb2.UsageGroup.DESCRIPTOR.fields
        if field.name not in ("values", "usage") and not field.name.startswith("duration_")
    ]
    of_requests = [field.name for field in common_pb2.Usage.DESCRIPTOR.fields]
    for filters in FILTERS:
        for group_by in GROUPS:
            request = question(questions_pb2.SummarizeUsageRequest, group_by=group_by, **filters, page_size=30)
            found = await all_pages(ledger.summarize_usage, request)
            counts, durations = counted(group_by, filters)
            assert [tuple(row.values) for row in found] == (sorted(counts) if group_by else [()]), (group_by, filters)
            for row in found:
                count = counts.get(tuple(row.values), Counter[str]())
                took = sorted(durations.get(tuple(row.values), []))
                told = {name: getattr(row, name) for name in names}
                told |= {name: getattr(row.usage, name) for name in of_requests}
                assert told == {name: count[name] for name in [*names, *of_requests]}, (group_by, filters)
                for percent in (50, 95, 99):
                    name = f"duration_p{percent}_ms"
                    assert row.HasField(name) == bool(took)
                    if took:
                        exact = took[-(-len(took) * percent // 100) - 1]
                        assert getattr(row, name) == pytest.approx(exact, rel=1 / 32, abs=0.5)


async def test_groups_come_in_the_order_of_what_they_cost_a_page_at_a_time(ledger):
    """Those that cost as much by their calls, and then by their values."""
    sessions = [session_row(id=name, labels=labels) for name, labels in LABELS.items()]
    await record(ledger, tool_calls=CALLS, model_requests=COSTS, sessions=sessions)
    for filters in FILTERS[::4]:
        for group_by in (["label:user"], ["session"], ["day", "tool"]):
            request = question(questions_pb2.SummarizeUsageRequest, group_by=group_by, **filters)
            groups = await all_pages(ledger.summarize_usage, request)
            groups.sort(key=lambda row: (-row.usage.known_cost_micros, -row.tool_calls, *row.values))
            for size in (2, 1000):
                request.page_size, request.order = size, questions_pb2.USAGE_ORDER_COST
                assert await all_pages(ledger.summarize_usage, request) == groups, (group_by, filters)
