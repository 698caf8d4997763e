"""What the gateway says of cost is the sum of the cost rows, to the micro, whatever happens to turns side by side."""

import asyncio
import random
from collections import defaultdict

import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Refusal, Script, Step, Tokens
from gateway_svc.errors import GatewayError
from gateway_svc.servicer import status_of
from gateway_svc.turns.budgets import Account, Budgets, LabelBudget, Spending
from gateway_svc.turns.queue import Turns
from gateway_svc.turns.requests import Requests
from tests.gateway_svc.house import House, open_house

READ = Call(name="read", arguments={"path": "notes.txt"})
ENDS = (
    Step(text="Done. " * 30, tokens=Tokens(input=900, output=33)),
    Step(refuse=Refusal(status=429)),
    Step(text="It is about to be cut.", cut_after=2),
    Step(text="Done.", omit=frozenset({"usage"})),
)
SHADOWS = [pb.EngineChoice(engine="openai", model="gpt-4o"), pb.EngineChoice(engine="ollama")]
BUDGET_MICROS = 60_000
SIDE_BY_SIDE = 8


async def run_some_turn(house: House, chance: random.Random, session_ids: list[str]) -> None:
    settings = pb.SessionSettings(
        labels={"team": "a"},
        shadows=SHADOWS if chance.random() < 0.4 else None,
        fallback=pb.EngineChoice(engine="openai", model="gpt-4.1-mini") if chance.random() < 0.3 else None,
        max_cost_micros=chance.randrange(500, 5_000) if chance.random() < 0.3 else None,
    )
    goes_on = session_ids and chance.random() < 0.6
    session = {"session_id": chance.choice(session_ids)} if goes_on else {"new_session": settings}
    max_cost_micros = chance.randrange(900) if chance.random() < 0.3 else None
    try:
        async with asyncio.timeout(chance.choice([0.05, 30, 30])):
            events = await house.run(engine="openai", max_cost_micros=max_cost_micros, **session)
        session_ids.append(events[0].turn_accepted.session_id)
    except (TimeoutError, GatewayError):
        pass


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
async def test_the_figures_add_up(tmp_path, seed):
    chance = random.Random(seed)
    spending = Spending(tmp_path)
    budgets = Budgets([LabelBudget("team", "a", BUDGET_MICROS)], spending)
    async with open_house(tmp_path, Script(steps=ENDS[:1]), Script()) as house:
        house.turns = Turns(
            house.sessions, house.agents, "openai", house.record_session, status_of, Requests(tmp_path), budgets=budgets
        )
        session_ids: list[str] = []
        for end in ENDS * 2:
            tokens = Tokens(input=chance.randrange(500, 2_000), output=chance.randrange(200), cached=7)
            look = Step(tool_calls=(READ,), tokens=tokens, repeat=chance.randrange(1, 6))
            house.openai.script = Script(steps=(look, end))
            await asyncio.gather(*(run_some_turn(house, chance, session_ids) for _ in range(SIDE_BY_SIDE)))
        async with asyncio.timeout(30):
            while house.turns._shadows._tasks:
                await asyncio.sleep(0.01)

        rows: dict[tuple[str, bool], list[audit_pb2.CostRow]] = defaultdict(list)
        for cost in house.costs:
            rows[cost.session_id, cost.shadow].append(cost)
        for (session_id, shadow), costs in rows.items():
            state = await house.sessions.get(session_id)
            totals = state.shadow_totals if shadow else state.totals
            assert totals.requests == len(costs)
            assert totals.known_cost_micros == sum(cost.cost_micros for cost in costs)
            for counter in ("input_tokens", "output_tokens", "cached_input_tokens"):
                assert getattr(totals, counter) == sum(getattr(cost, counter) for cost in costs)
        total = sum(cost.cost_micros for cost in house.costs)
        assert spending.spent(Account("team", "a", "")) == total > 0
        one_step = max(cost.cost_micros for cost in house.costs)
        assert total < BUDGET_MICROS + (SIDE_BY_SIDE + 8) * one_step, "each of those side by side is late by one step"
