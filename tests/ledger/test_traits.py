"""Sessions are found by what their rows say: persons, agents, tools and outcomes."""

from typing import Any

import pytest
from onrecord.audit.v1 import questions_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.errors import InvalidRequest
from audit_svc.ledger.query import query_of
from audit_svc.sql.read import session_traits
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, question, session_row
from tests.ledger.asking import all_pages, record

DENIED, FAILED = common_pb2.OUTCOME_DENIED, common_pb2.OUTCOME_FAILED
SESSIONS = [session_row(id=f"s{n}", created_at_ms=NOW_MS + n, engine=("ollama", "claude")[n % 2]) for n in range(9)]
CALLS = [
    audit_row(
        session_id=f"s{n}",
        principal=("ada", "bob", "")[n % 3],
        agent={"name": f"agent-{n % 2}", "version": str(n)},
        tool_name=tool,
        outcome=DENIED if n == 4 and tool == "bash" else common_pb2.OUTCOME_SUCCEEDED,
        exit_code=None,
    )
    for n in range(8)
    for tool in ("read", "bash")[: 1 + n % 2 + (n == 4)]
]
COSTS = [cost_row(session_id="s8", principal="eve", agent={"name": "agent-1"}), cost_row(session_id="s8")]

CASES: list[tuple[dict[str, Any], set[int]]] = [
    ({"principal": "ada"}, {0, 3, 6}),
    ({"principal": "eve"}, {8}),
    ({"principal": "nobody"}, set()),
    ({"agent_name": "agent-1"}, {1, 3, 5, 7, 8}),
    ({"tool_name": "bash"}, {1, 3, 4, 5, 7}),
    ({"outcomes": [DENIED, FAILED]}, {4}),
    ({"principal": "ada", "tool_name": "bash"}, {3}),
    ({"principal": "bob", "engine": "claude"}, {1, 7}),
    ({"tool_name": "bash", "created_from_ms": NOW_MS + 4, "created_before_ms": NOW_MS + 7}, {4, 5}),
    ({"tool_name": "read", "recorded_by": "somebody"}, set()),
]


@pytest.mark.parametrize("few", [0, 10_000])
async def test_pages_hold_every_session_with_such_a_row_once_the_newest_first(ledger, monkeypatch, few):
    """Whether those are looked up or met on the way, and whether their rows have been summed or not."""
    monkeypatch.setattr(session_traits, "FEW_SESSIONS", few)
    await record(ledger, tool_calls=CALLS[:9], model_requests=COSTS[:1], sessions=SESSIONS)
    await record(ledger, tool_calls=CALLS[9:], model_requests=COSTS[1:])
    for filters, wanted in CASES:
        asked = question(questions_pb2.ListSessionRecordsRequest, **filters, page_size=2)
        found = await all_pages(ledger.list_sessions, asked)
        assert [row.id for row in found] == [f"s{n}" for n in sorted(wanted, reverse=True)], filters


async def test_calls_without_an_outcome_are_no_trait(ledger):
    asked = question(questions_pb2.ListSessionRecordsRequest, outcomes=[common_pb2.OUTCOME_UNSPECIFIED])
    with pytest.raises(InvalidRequest, match="say how a call ended"):
        await ledger.list_sessions(query_of(asked))
