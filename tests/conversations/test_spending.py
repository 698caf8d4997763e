"""What labels have spent at gateways that share sessions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from gateway_svc.conversations.postgres.store import PostgresConversations
from gateway_svc.turns.budgets import Account, Budgets, LabelBudget
from tests.support.postgres import *  # noqa: F403 - fixtures

pytestmark = pytest.mark.postgres

TEAM, OTHER = Account("team", "a", ""), Account("team", "b", "")
BUDGET = LabelBudget("team", "a", 100)


@pytest.fixture
async def make_home(postgres_database) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:

        def make() -> PostgresConversations:
            home = PostgresConversations(postgres_database)
            stack.push_async_callback(home.aclose)
            return home

        yield make


async def until(holds) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.02)


async def test_what_one_gateway_spends_the_others_count(make_home):
    one, two = make_home(), make_home()
    budgets = [(await Budgets([BUDGET], home.spending).of({"team": "a"})) for home in (one, two)]
    budgets[0].add(60)
    assert budgets[0].budgets[0].left_micros == 40, "its own at once"
    await until(lambda: budgets[1].budgets[0].left_micros == 40)
    budgets[1].add(50)
    await until(lambda: [each.budgets[0].left_micros for each in budgets] == [-10, -10])
    three = make_home()
    assert (await Budgets([BUDGET], three.spending).of({"team": "a"})).budgets[0].left_micros == -10
    assert three.spending.spent(OTHER) == 0


async def test_what_was_told_twice_counts_once_and_sums_of_gateways_that_are_gone_are_one(make_home, postgres_database):
    one, two = make_home(), make_home()
    for home, micros in ((one, 30), (two, 12)):
        await home.spending.look([TEAM])
        home.spending.add([TEAM], micros, datetime.now(UTC))
        await home.spending.look([TEAM])
        home.spending._untold.add(str(TEAM))  # as if the answer had been lost
        await home.spending.look([TEAM])
    await one.aclose()
    await two.aclose()
    with psycopg.connect(postgres_database, autocommit=True) as connection:
        connection.execute("UPDATE gateway_spending SET updated_at = updated_at - interval '2 days'")
        later = make_home()
        for _ in range(2):
            await later.spending.look([TEAM])
        assert later.spending.spent(TEAM) == 42
        assert connection.execute("SELECT gateway, micros FROM gateway_spending").fetchall() == [(0, 42)]
