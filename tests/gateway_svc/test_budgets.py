"""What labels have spent survives, is shared, and is looked at by period."""

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Script, Step, Tokens
from gateway_svc.errors import BudgetUnknown
from gateway_svc.turns.account import Totals
from gateway_svc.turns.budgets import Account, Budgets, LabelBudget, Spending
from tests.gateway_svc.house import kinds, open_house
from tests.support.conversations import open_sessions

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)
TEAM = Account("team", "research", "2026-11")


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("team=research:5000000", LabelBudget("team", "research", 5_000_000)),
        ("user=*:1000/day", LabelBudget("user", "*", 1_000, "day")),
        ("team=a:b=c:7/month", LabelBudget("team", "a:b=c", 7, "month")),
    ],
)
def test_a_budget_is_read_from_its_setting(text, budget):
    assert LabelBudget.parse(text) == budget


@pytest.mark.parametrize("text", ["team", "team=research", "team=x:1.5", "team=x:1/year", "=x:1", "team=x:-1"])
def test_what_is_no_budget_is_refused_with_the_form_that_is_one(text):
    with pytest.raises(ValueError, match="KEY=VALUE:MICROS/day"):
        LabelBudget.parse(text)


def test_an_account_is_one_value_in_one_period():
    labels = {"team": "research", "user": "ada"}
    assert LabelBudget("team", "research", 1, "month").account(labels, NOW) == TEAM
    assert LabelBudget("user", "*", 1, "day").account(labels, NOW) == Account("user", "ada", "2026-11-24")
    assert LabelBudget("team", "sales", 1).account(labels, NOW) is None
    assert LabelBudget("cost", "*", 1).account(labels, NOW) is None
    assert TEAM.created_from_ms == 1_793_491_200_000
    assert Account("a", "b", "2026-11-24").created_from_ms == 1_793_491_200_000 + 23 * 86_400_000
    assert Account("a", "b", "").created_from_ms is None


def test_what_was_spent_survives_and_is_shared_by_gateways(tmp_path):
    one, two = Spending(tmp_path), Spending(tmp_path)

    def spend(spending: Spending) -> None:
        for _ in range(100):
            spending.add([TEAM], 1, NOW)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(spend, [one, two]))
    assert one.spent(TEAM) == two.spent(TEAM) == Spending(tmp_path).spent(TEAM) == 200
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir() if path.suffix == ".lock"} == {0}


def test_periods_that_are_over_are_forgotten(tmp_path):
    spending = Spending(tmp_path)
    always = Account("team", "research", "")
    spending.add([TEAM, always], 5, NOW)
    spending.add([Account("team", "research", "2026-12")], 7, datetime(2026, 12, 1, tzinfo=UTC))
    assert (spending.spent(TEAM), spending.spent(always)) == (0, 5)


def test_a_file_that_a_power_cut_left_empty_stops_no_turn(tmp_path):
    spending = Spending(tmp_path)
    spending.add([TEAM], 5, NOW)
    (tmp_path / "spending.json").write_bytes(b"")
    assert spending.spent(TEAM) == 0
    spending.add([TEAM], 7, NOW)
    assert spending.spent(TEAM) == 7


def test_a_disk_that_takes_nothing_loses_no_count(tmp_path):
    spending = Spending(tmp_path)
    (tmp_path / "spending.draft").mkdir()
    spending.add([TEAM], 5, NOW)
    assert spending.spent(TEAM) == 5
    (tmp_path / "spending.draft").rmdir()
    spending.add([TEAM], 1, NOW)
    assert Spending(tmp_path).spent(TEAM) == 6


async def test_the_ledger_tells_what_other_gateways_have_spent(tmp_path):
    spending = Spending(tmp_path)
    label = LabelBudget("team", "research", 100)

    async def ask(account: Account) -> int:
        assert account == Account("team", "research", "")
        return 60

    found = await Budgets([label], spending, ask).of({"team": "research"})
    found.add(10)
    assert found.budgets[0].spent() == 70
    again = await Budgets([label], spending, ask).of({"team": "research"})
    assert again.budgets[0].spent() == 60, "the ledger knows of the ten by then"


@pytest.mark.parametrize("strict", [True, False])
async def test_without_the_ledger_strict_refuses_and_best_effort_says_so(tmp_path, strict):
    async def ask(account: Account) -> int:
        await asyncio.sleep(0)
        raise BudgetUnknown("the ledger does not answer")

    budgets = Budgets([LabelBudget("team", "research", 100)], Spending(tmp_path), ask, strict=strict)
    if strict:
        with pytest.raises(BudgetUnknown):
            await budgets.of({"team": "research"})
    else:
        [sentence] = (await budgets.of({"team": "research"})).uncertain
        assert "what this gateway knows of counts" in sentence
    assert (await budgets.of({"team": "other"})).budgets == []


@pytest.mark.parametrize(("engine", "micros"), [("openai", 420), ("ollama", 0)])
async def test_a_process_that_is_killed_in_a_turn_leaves_what_it_has_used_and_spent(tmp_path, engine, micros):
    """A session whose gateway dies again and again would otherwise never reach its budget."""
    look = Step(
        tool_calls=(Call(name="read", arguments={"path": "notes.txt"}),), tokens=Tokens(input=1_000, output=100)
    )
    script = Script(steps=(look, look, Step(text="slow", delay_ms=60_000)))
    async with open_house(tmp_path, script, script) as house:
        running = asyncio.create_task(house.run(engine=engine, new_session=pb.SessionSettings(max_cost_micros=1_000)))
        await getattr(house, engine).received(3)
        killed = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-killed"))
        [session_id] = await open_sessions(killed).left_running()
        async with open_sessions(killed).hold(session_id) as session:
            state = session.state
        assert (state.totals.requests, state.totals.tool_calls, state.totals.known_cost_micros) == (2, 2, micros)
        assert sum(cost.cost_micros for cost in house.costs) == micros
        await house.turns.cancel_all()
        await running


@pytest.mark.parametrize("request_", [{"max_cost_micros": 0}, {"new_session": pb.SessionSettings(max_cost_micros=0)}])
async def test_where_nothing_may_be_spent_no_model_is_asked(tmp_path, request_):
    """A budget of 0 is one; without a budget the turn runs."""
    script = Script(steps=(Step(text="Done."),))
    async with open_house(tmp_path, script, Script()) as house:
        events = await house.run(**request_)
        assert kinds(events) == ["turn_accepted", "turn_started", "warning", "turn_finished"]
        assert events[-2].warning.message.endswith(" is used up: $0.000000 of $0.000000 are spent")
        assert events[-1].turn_finished.stop_reason == pb.STOP_REASON_MAX_COST
        assert not house.ollama.requests
        assert (await house.run())[-1].turn_finished.stop_reason == pb.STOP_REASON_COMPLETED


def test_a_sum_that_would_pass_the_largest_number_stays_there():
    totals = Totals()
    for _ in range(2):
        totals.add(Totals.of(audit_pb2.CostRow(input_tokens=2**63 - 1, cost_micros=2**63 - 1)))
    assert totals.to_usage() == common_pb2.Usage(requests=2, input_tokens=2**63 - 1, known_cost_micros=2**63 - 1)
