"""The pictures of docs/pictures: of a day of rows as agents leave them, drawn by the pages in Chromium.

They are written there with --pictures. Without it they are made all the same: a page that cannot be drawn has a defect.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from demo.processes import REPOSITORY
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, record_request, session_row
from tests.ui.conftest import MINUTE_MS, Browser, Pages, record
from tests.ui.test_gateway import House, house, waiting

pytestmark = pytest.mark.ui
__all__ = ["house"]  # a fixture

MOST_BYTES = 150_000
SESSIONS = 24
ALLOWED = {"verdict": common_pb2.VERDICT_ALLOWED, "source": common_pb2.DECISION_SOURCE_CONFIGURATION}
DENIED = {"verdict": common_pb2.VERDICT_DENIED, "source": common_pb2.DECISION_SOURCE_PERSON, "decided_by": "bob",
          "waited_ms": 41_000, "reason": "not on a Friday"}  # fmt: skip


def a_day() -> Iterator[audit_pb2.RecordRequest]:
    """An agent's sessions, one an hour, each like the other but for how much it did."""
    for number in range(SESSIONS):
        name, began = f"s-{number:02}", NOW_MS - (SESSIONS - number) * 60 * MINUTE_MS + 5 * MINUTE_MS
        who = {"session_id": name, "principal": "ada", "model": "claude-opus-5", "engine": "claude"}
        agent = {"agent": {"name": "claude-code", "version": "2.1"}}
        at, calls, costs = began, [], []
        for turn in range(1 + number % 3):
            for step in range(2 + number % 4):
                took = 1900 + 300 * step
                costs.append(
                    cost_row(**who, **agent, turn_id=f"t-{turn}", created_at_ms=at, duration_ms=took,
                             input_tokens=12_400 + 900 * step, output_tokens=310, cost_micros=41_000)
                )  # fmt: skip
                at += took + 50
                kinds: list[dict[str, Any]] = [
                    {"tool_name": "Read", "args_summary": '{"file_path": "src/billing.py"}', "exit_code": None},
                    {"tool_name": "Bash", "args_summary": '{"command": "make test"}', "exit_code": 2 * (number % 2)},
                    {"tool_name": "Bash", "args_summary": '{"command": "rm -r build"}', "exit_code": None,
                     "outcome": common_pb2.OUTCOME_DENIED, "decision": DENIED, "error": "a person refused it"},
                    {"tool_name": "WebFetch", "args_summary": '{"url": "…"}', "http_status": 200, "exit_code": None},
                ]  # fmt: skip
                kind = kinds[step % 4]
                took = 0 if "error" in kind else 40 + 900 * (step % 3)
                calls.append(audit_row(**{"decision": ALLOWED, **who, **agent, **kind}, turn_id=f"t-{turn}",
                                       created_at_ms=at, duration_ms=took))  # fmt: skip
                at += took + 50
            at += 90_000
        usage = {"requests": len(costs), "input_tokens": sum(row.input_tokens for row in costs),
                 "output_tokens": 310 * len(costs), "known_cost_micros": 41_000 * len(costs)}  # fmt: skip
        status = common_pb2.SESSION_STATUS_RUNNING if number == SESSIONS - 1 else common_pb2.SESSION_STATUS_IDLE
        session = session_row(id=name, engine="claude", model="claude-opus-5", status=status, turns=1 + number % 3,
                              tool_calls=len(calls), usage=usage, labels={"repository": "shop"}, created_at_ms=began,
                              updated_at_ms=at)  # fmt: skip
        yield record_request(tool_calls=calls, model_requests=costs, sessions=[session])


@pytest.fixture(scope="module")
def shown(house: House) -> Iterator[Pages]:
    """The pages of an approver of a house where a call waits."""
    record(house.ledger, *a_day())
    turn = house.run()
    with house.shown_to("bob") as pages:
        fields = waiting(pages)
        yield pages
        own = {name: fields[name] for name in ("tool_call_id", "key_id", "digest")}
        pages.send("/approvals", "/approvals/answer", **own, verdict="denied")
    turn.join(60)


@pytest.mark.parametrize(
    ("name", "path", "width", "scheme"),
    [
        ("start", "/", 1000, "light"),
        ("session", "/session?id=s-22", 1000, "light"),
        ("session-phone", "/session?id=s-22", 390, "dark"),
        ("approvals", "/approvals", 1000, "light"),
    ],
)
def test_pictures(chromium, shown, pytestconfig, tmp_path, name, path, width, scheme):
    folder: Path = REPOSITORY / "docs" / "pictures" if pytestconfig.getoption("--pictures") else tmp_path
    window = Browser(chromium, shown, width, scheme)
    page = window.open(path)
    if name == "session":
        page.locator("details.denied").first.evaluate("node => node.open = true")
    page.screenshot(path=folder / f"ui-{name}.png", animations="disabled")
    window.context.close()
    assert window.said == []
    assert 5_000 < (folder / f"ui-{name}.png").stat().st_size < MOST_BYTES
