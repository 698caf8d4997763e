"""The stops in the database that gateways share: how long they are kept there."""

from collections.abc import AsyncIterator

import psycopg
import pytest
from onrecord.gateway.v1 import control_pb2

from gateway_svc.conversations.postgres.store import PostgresConversations
from gateway_svc.stopping.kept import MAX_LIFTED, Ours
from tests.support.postgres import *  # noqa: F403 - fixtures

pytestmark = pytest.mark.postgres


@pytest.fixture
async def home(postgres_database) -> AsyncIterator[PostgresConversations]:
    opened = PostgresConversations(postgres_database)
    yield opened
    await opened.aclose()


async def test_stops_in_force_are_kept_and_of_those_that_were_lifted_the_last(home):
    made = f"""INSERT INTO gateway_stops
        SELECT n::text, '', false, clock_timestamp() - n * interval '1 s' FROM generate_series(1, {MAX_LIFTED}) AS n"""
    found = "SELECT id, lifted_at IS NOT NULL FROM gateway_stops WHERE id IN ('one', 'two', '1', %s)"
    scope = control_pb2.StopScope(principal="ada")
    made_now = [control_pb2.Stop(id=name, scope=scope, reason="a drill") for name in ("one", "two")]
    stops = [Ours(stop, lets_calls_end=False) for stop in made_now]
    async with await psycopg.AsyncConnection.connect(home.database.conninfo, autocommit=True) as connection:
        await connection.execute(made)
        await home.stops.save(stops, [])
        await home.stops.save([], ["two"])
        rows = await (await connection.execute(found, [str(MAX_LIFTED)])).fetchall()
    assert sorted(rows) == [("1", True), ("one", False), ("two", True)], "the oldest is forgotten"
