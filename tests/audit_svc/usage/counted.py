"""Any rows and questions of usage, and the answers, counted row by row."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.ledger import histogram
from audit_svc.ledger.steps import DAY_MS, HOUR_MS
from audit_svc.ledger.usage import MAX_SUMMED
from recording.durations import WITHOUT_DURATION
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, question

MIDNIGHT = NOW_MS // DAY_MS * DAY_MS - DAY_MS
HOURS = st.sampled_from([MIDNIGHT + hours * HOUR_MS for hours in (-100 * 24, -9 * 24, -24, -1, 0, 1, 5)])
# Around the ends of hours and days, where an answer is put together from several tables, and on both sides of what an
# hour and a day are cut into.
TIMES = st.builds(
    lambda base, off: base + off,
    HOURS,
    st.sampled_from([-1, 0, 1, 1_234_567, HOUR_MS // 2]) | st.integers(0, DAY_MS),
)
# How many rows the sums of sessions have of each kind: none, some or all.
SUMMED_ROWS = st.tuples(st.integers(0, 30), st.integers(0, 12))
SESSIONS = {
    "s1": {"user": "ada", "team": "red"},
    "s2": {"user": "ada"},
    "s3": {"user": "bob", "team": "red"},
    "s4": {},
}
ENGINES, MODELS, TOOLS = ["ollama", "openai"], ["", "small", "large"], ["read", "bash", "webfetch"]
SOURCES = {0: "", 1: "own_loop"}
OUTCOMES = {1: "succeeded", 2: "failed", 6: "interrupted", 8: "dry_run"}
WHO = ["principal", "agent", "source", "mcp_server"]
KEYS = ["session", "engine", "model", "tool", "outcome", "hour", "day", "label:user", "label:team", *WHO]
NAMED = ["label:user", "label:team", *WHO]
"""What there are sums of by hours and days."""
PRINCIPALS, AGENTS = ["", "ada", "bob"], [{}, {"agent": {"name": "codex"}}, {"agent": {"name": "claude-code"}}]
SUMMED = [0, 1, 31, 33, 5_000, MAX_SUMMED, 2**50]

calls = st.builds(
    lambda agent, **fields: audit_row(**agent, **fields),
    agent=st.sampled_from(AGENTS),
    principal=st.sampled_from(PRINCIPALS),
    source=st.sampled_from([0, 1]),
    # "s5" has no row of its own.
    session_id=st.sampled_from([*SESSIONS, "s5"]),
    engine=st.sampled_from(ENGINES),
    model=st.sampled_from(MODELS),
    tool_name=st.sampled_from(TOOLS),
    outcome=st.sampled_from(list(OUTCOMES)),
    exit_code=st.sampled_from([None, 0, 2]),
    http_status=st.sampled_from([None, 200, 400]),
    error=st.sampled_from([None, "broken"]),
    shadow=st.booleans(),
    duration_ms=st.sampled_from(SUMMED),
    result_bytes=st.sampled_from(SUMMED),
    created_at_ms=TIMES,
)
requests = st.builds(
    lambda agent, **fields: cost_row(**agent, **fields),
    agent=st.sampled_from(AGENTS),
    principal=st.sampled_from(PRINCIPALS),
    session_id=st.sampled_from([*SESSIONS, "s5"]),
    engine=st.sampled_from(ENGINES),
    model=st.sampled_from(MODELS),
    error=st.sampled_from([None, "broken"]),
    shadow=st.booleans(),
    input_tokens=st.sampled_from(SUMMED),
    cost_micros=st.sampled_from([None, 0, 7]),
    created_at_ms=TIMES,
)
questions = st.builds(
    lambda times, **fields: question(
        questions_pb2.SummarizeUsageRequest,
        **fields,
        created_from_ms=None if times[0] is None else times[0],
        created_before_ms=None if times[1] is None else times[1],
        page_size=1000,
    ),
    order=st.sampled_from(questions_pb2.UsageOrder.values()),
    times=st.tuples(st.none() | TIMES, st.none() | TIMES).filter(
        lambda ends: ends[0] is None or ends[1] is None or ends[0] < ends[1]
    ),
    group_by=st.lists(st.sampled_from(KEYS), unique=True, max_size=4)
    | st.lists(st.sampled_from(["hour", "day"]), max_size=1).flatmap(
        lambda periods: st.sampled_from(NAMED).map(lambda name: [name, *periods])
    ),
    session_id=st.sampled_from(["", "", "", "s1"]),
    principal=st.sampled_from(["", "", "", "ada"]),
    engine=st.sampled_from(["", "", "ollama"]),
    model=st.sampled_from(["", "", "small"]),
    tool_name=st.sampled_from(["", "", "bash"]),
    outcomes=st.lists(st.sampled_from(list(OUTCOMES)), unique=True, max_size=2),
    labels=st.dictionaries(st.sampled_from(["user", "team"]), st.sampled_from(["ada", "red"]), max_size=2),
    has_error=st.sampled_from([None, None, None, True, False]),
    shadow=st.sampled_from([None, None, None, True, False]),
    clock_suspect=st.sampled_from([None, None, None, None, False]),
    args_contain=st.sampled_from(["", "", "", "LS", "nowhere"]),
)


def expected(
    asked: questions_pb2.SummarizeUsageRequest, rows: list[Any], costs: list[Any]
) -> list[questions_pb2.UsageGroup]:
    """The answer, counted row by row in the plainest way."""
    groups: dict[tuple[str, ...], questions_pb2.UsageGroup] = {}
    durations: dict[tuple[str, ...], list[int]] = {}
    wanted = asked.filter
    of_calls = wanted.HasField("has_error") or wanted.HasField("clock_suspect")
    only_calls = wanted.tool_name or wanted.outcomes or wanted.args_contain or of_calls
    for row in [*rows, *([] if only_calls else costs)]:
        is_call = isinstance(row, audit_pb2.AuditRow)
        labels = SESSIONS.get(row.session_id, {})
        if not (
            wanted.session_id in ("", row.session_id)
            and wanted.engine in ("", row.engine)
            and wanted.principal in ("", row.principal)
            and wanted.model in ("", row.model)
            and (not is_call or wanted.tool_name in ("", row.tool_name))
            and (not is_call or not wanted.outcomes or row.outcome in wanted.outcomes)
            and (not wanted.HasField("has_error") or row.HasField("error") == wanted.has_error)
            and (not wanted.HasField("shadow") or row.shadow == wanted.shadow)
            and (not wanted.args_contain or wanted.args_contain.lower() in row.args_summary.lower())
            and not (wanted.HasField("clock_suspect") and wanted.clock_suspect)
            and all(labels.get(key) == value for key, value in wanted.labels.items())
            and (not wanted.HasField("created_from_ms") or row.created_at_ms >= wanted.created_from_ms)
            and (not wanted.HasField("created_before_ms") or row.created_at_ms < wanted.created_before_ms)
        ):
            continue
        time = datetime.fromtimestamp(row.created_at_ms / 1000, UTC)
        values = {
            "session": row.session_id,
            "engine": row.engine,
            "model": row.model,
            "tool": row.tool_name if is_call else "",
            "outcome": OUTCOMES[row.outcome] if is_call else "",
            "hour": f"{time:%Y-%m-%dT%H:00Z}",
            "day": f"{time:%Y-%m-%d}",
            "principal": row.principal,
            "agent": row.agent.name,
            "source": SOURCES[row.source],
            "mcp_server": "",
            "label:user": labels.get("user", ""),
            "label:team": labels.get("team", ""),
        }
        key = tuple(values[name] for name in asked.group_by)
        group = groups.setdefault(key, questions_pb2.UsageGroup(values=key, usage=common_pb2.Usage()))
        if is_call:
            group.tool_calls += 1
            group.tool_call_errors += row.HasField("error")
            group.nonzero_exits += row.exit_code != 0
            group.http_errors += row.http_status >= 400
            group.result_bytes += min(row.result_bytes, MAX_SUMMED)
            if row.outcome not in WITHOUT_DURATION:
                durations.setdefault(key, []).append(row.duration_ms)
        else:
            group.usage.requests += 1
            group.model_request_errors += row.HasField("error")
            group.usage.input_tokens += min(row.input_tokens, MAX_SUMMED)
            group.usage.output_tokens += row.output_tokens
            group.usage.known_cost_micros += row.cost_micros
            group.usage.unpriced_requests += not row.HasField("cost_micros")
    for key, group in groups.items():
        if key in durations:
            counted = histogram.count(durations[key])
            for name, value in zip(("p50", "p95", "p99"), histogram.quantiles(counted, (0.5, 0.95, 0.99)), strict=True):
                setattr(group, f"duration_{name}_ms", value)
    if not asked.group_by:
        return [groups.get((), questions_pb2.UsageGroup(usage=common_pb2.Usage()))]
    return sorted(groups.values(), key=order_of(asked))


def order_of(asked: questions_pb2.SummarizeUsageRequest) -> Callable[[questions_pb2.UsageGroup], tuple[Any, ...]]:
    """The key that groups are sorted by."""
    if asked.order == questions_pb2.USAGE_ORDER_COST:
        return lambda group: (-group.usage.known_cost_micros, -group.tool_calls, *group.values)
    return lambda group: tuple(group.values)
