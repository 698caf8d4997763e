"""Usage in groups is what a plain fold over the rows says, whatever is grouped, filtered and cut."""

import math
from collections import defaultdict
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2

from audit_svc.errors import InvalidRequest
from audit_svc.store.rollups import DAY_MS
from audit_svc.store.rows import read_batch
from audit_svc.store.summaries import DIMENSIONS, summarize_usage
from audit_svc.store.usage import HOUR_MS
from audit_svc.store.writer import Writer
from service_kit.paging import InvalidPage
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, session_row

BEGIN = NOW_MS - NOW_MS % DAY_MS - 3 * DAY_MS
USERS = {"s0": "ada", "s1": "ada", "s2": "grace"}
Request = audit_pb2.SummarizeUsageRequest


def some_calls() -> list[audit_pb2.AuditRow]:
    """Over three days, some of them on the hour or at midnight."""
    return [
        audit_row(
            id=f"call-{n}",
            session_id=f"s{n % 4}",
            engine=("ollama", "openai")[n % 2],
            model=("small", "large", "")[n % 3],
            tool_name=("bash", "webfetch")[n % 5 % 2],
            outcome=(audit_pb2.OUTCOME_SUCCEEDED, audit_pb2.OUTCOME_FAILED, 0)[n % 7 % 3],
            error="broken" if n % 6 == 0 else None,
            exit_code=n % 3 if n % 2 else None,
            http_status=(200, 404, 500)[n % 3] if n % 2 == 0 else None,
            duration_ms=(n * 37) % 5000,
            result_bytes=n,
            created_at_ms=BEGIN + (n * 5 * HOUR_MS) // 4 % (3 * DAY_MS) + (n % 3) * 1000,
        )
        for n in range(400)
    ]


def some_requests() -> list[audit_pb2.CostRow]:
    return [
        cost_row(
            id=f"cost-{n}",
            session_id=f"s{n % 4}",
            engine=("ollama", "openai")[n % 2],
            model=("small", "large", "")[n % 3],
            input_tokens=n,
            output_tokens=2 * n,
            cached_input_tokens=n // 2,
            reasoning_tokens=n // 3,
            cost_micros=n if n % 4 else None,
            error="down" if n % 9 == 0 else None,
            created_at_ms=BEGIN + (n * 7 * HOUR_MS) // 4 % (3 * DAY_MS),
        )
        for n in range(200)
    ]


CALLS, REQUESTS = some_calls(), some_requests()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from audit_svc.store import migrate
    from audit_svc.store.opening import open_for_reading, open_for_writing

    path = tmp_path_factory.mktemp("usage") / "audit.db"
    connection = open_for_writing(path)
    migrate.up(connection, migrate.load_migrations())
    writer = Writer(connection, 50_000)
    sessions = [session_row(id=name, labels={"user": user}) for name, user in USERS.items()]
    sent = audit_pb2.RecordRequest(rows=CALLS, costs=REQUESTS, sessions=sessions)
    writer.record(read_batch(sent, NOW_MS)).result()
    reading = open_for_reading(path)
    yield reading
    reading.close()
    writer.close()


def value(row: audit_pb2.AuditRow | audit_pb2.CostRow, dimension: str) -> str:
    match dimension:
        case "session":
            return row.session_id
        case "tool":
            return row.tool_name if isinstance(row, audit_pb2.AuditRow) else ""
        case "outcome":
            if isinstance(row, audit_pb2.CostRow) or not row.outcome:
                return ""
            return audit_pb2.Outcome.Name(row.outcome).removeprefix("OUTCOME_").lower()
        case "hour" | "day":
            import datetime

            time = datetime.datetime.fromtimestamp(row.created_at_ms / 1000, datetime.UTC)
            return time.strftime("%Y-%m-%dT%H:00Z" if dimension == "hour" else "%Y-%m-%d")
        case "label:user":
            return USERS.get(row.session_id, "")
    return str(getattr(row, dimension))


def passes(row: audit_pb2.AuditRow | audit_pb2.CostRow, request: Request) -> bool:
    is_call = isinstance(row, audit_pb2.AuditRow)
    if (request.tool_name or request.outcomes) and not is_call:
        return False
    return (
        all(getattr(request, name) in ("", getattr(row, name)) for name in ("session_id", "engine", "model"))
        and (not request.tool_name or row.tool_name == request.tool_name)  # type: ignore[union-attr]
        and (not request.outcomes or row.outcome in request.outcomes)  # type: ignore[union-attr]
        and (not request.labels or USERS.get(row.session_id) == request.labels["user"])
        and (not request.HasField("created_from_ms") or row.created_at_ms >= request.created_from_ms)
        and (not request.HasField("created_before_ms") or row.created_at_ms < request.created_before_ms)
    )


def folded(request: Request) -> dict[tuple[str, ...], dict[str, Any]]:
    groups: dict[tuple[str, ...], dict[str, Any]] = defaultdict(lambda: defaultdict(int))
    if not request.group_by:
        groups[()] = defaultdict(int)
    durations: dict[tuple[str, ...], list[int]] = defaultdict(list)
    rows: list[audit_pb2.AuditRow | audit_pb2.CostRow] = [*CALLS, *REQUESTS]
    for row in rows:
        if not passes(row, request):
            continue
        key = tuple(value(row, dimension) for dimension in request.group_by)
        sums = groups[key]
        if isinstance(row, audit_pb2.AuditRow):
            sums["calls"] += 1
            sums["errors"] += row.HasField("error")
            sums["nonzero_exits"] += row.exit_code != 0
            sums["http_errors"] += row.http_status >= 400
            sums["result_bytes"] += row.result_bytes
            durations[key].append(row.duration_ms)
        else:
            sums["requests"] += 1
            sums["request_errors"] += row.HasField("error")
            for name in ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens", "cost_micros"):
                sums[name] += getattr(row, name)
            sums["unpriced_requests"] += not row.HasField("cost_micros")
    for key, known in durations.items():
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            groups[key][f"duration_{name}_ms"] = sorted(known)[math.ceil(share * len(known)) - 1]
    return groups


times = st.one_of(
    st.none(),
    st.integers(BEGIN, BEGIN + 3 * DAY_MS),
    st.integers(0, 72).map(lambda hours: BEGIN + hours * HOUR_MS),
    st.integers(0, 3).map(lambda days: BEGIN + days * DAY_MS),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    group_by=st.lists(st.sampled_from([*DIMENSIONS, "label:user"]), unique=True, max_size=3),
    session_id=st.sampled_from(["", "", "s1"]),
    engine=st.sampled_from(["", "ollama"]),
    model=st.sampled_from(["", "large"]),
    tool_name=st.sampled_from(["", "", "bash"]),
    outcomes=st.sampled_from([[], [], [audit_pb2.OUTCOME_FAILED], [0, audit_pb2.OUTCOME_SUCCEEDED]]),
    labels=st.sampled_from([{}, {}, {"user": "ada"}]),
    ends=st.tuples(times, times),
    page_size=st.sampled_from([1, 7, 1000]),
)
def test_usage_is_what_a_fold_over_the_rows_says(filled: apsw.Connection, ends: Any, page_size: int, **filters: Any):
    begin, end = ends
    if begin is not None and end is not None and begin >= end:
        begin, end = end, begin + 1
    request = Request(**filters, created_from_ms=begin, created_before_ms=end, page_size=page_size)
    found: list[audit_pb2.UsageRow] = []
    while True:
        response = summarize_usage(filled, request)
        found += response.rows
        request.page_token = response.next_page_token
        if not request.page_token:
            break
    expected = folded(request)
    assert [tuple(row.group) for row in found] == sorted(expected)
    for row in found:
        wanted = expected[tuple(row.group)]
        for field in row.DESCRIPTOR.fields:
            if field.name.startswith("duration_"):
                assert row.HasField(field.name) == bool(row.calls)  # type: ignore[arg-type] # one of the three
                assert getattr(row, field.name) == pytest.approx(wanted.get(field.name, 0), rel=1 / 32)
            elif field.name != "group":
                assert getattr(row, field.name) == wanted[field.name], field.name


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"group_by": ["colour"]}, "label:KEY"),
        ({"group_by": ["label:"]}, "label:KEY"),
        ({"group_by": ["tool", "tool"]}, "twice"),
        ({"group_by": [f"label:{n}" for n in range(9)]}, "more than 8"),
        ({"outcomes": [99]}, "does not know"),
        ({"created_from_ms": 9, "created_before_ms": 3}, "no time is in the range"),
    ],
)
def test_what_cannot_be_summed_up_is_refused(filled: apsw.Connection, filters: dict[str, Any], said: str):
    with pytest.raises(InvalidRequest, match=said):
        summarize_usage(filled, Request(**filters))


def test_a_token_of_other_groups_is_refused(filled: apsw.Connection):
    token = summarize_usage(filled, Request(group_by=["engine", "tool"], page_size=1)).next_page_token
    with pytest.raises(InvalidPage):
        summarize_usage(filled, Request(group_by=["tool"], page_token=token))
