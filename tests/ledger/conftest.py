"""Every store of the ledger, empty and open, for the suite that all of them must pass.

A store is added by a line in STORES: how it is opened in a folder of its own, and how its gaps and refusals are read.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from audit_svc.ledger.protocol import Ledger
from audit_svc.postgres.store import PostgresLedger
from audit_svc.sqlite.store import SqliteLedger
from tests.audit_svc.empty import write_empty
from tests.ledger.lists.asked import Gap, Refused
from tests.ledger.lists.ledger import ListLedger
from tests.support.postgres import *  # noqa: F403 - fixtures


async def sql_gaps(ledger: Any) -> list[Gap]:
    statement = "SELECT producer_id, first_sequence, last_sequence FROM producer_gaps ORDER BY 1, 2"
    found: list[Gap] = await ledger._reader.ask(lambda connection: connection.execute(statement).fetchall())
    return found


async def list_gaps(ledger: Any) -> list[Gap]:
    found: list[Gap] = ledger.gaps()
    return found


async def sql_refusals(ledger: Any) -> list[Refused]:
    statement = "SELECT producer_id, code, rows, first_sequence, last_sequence FROM refusals ORDER BY 1, 2"
    found: list[Refused] = await ledger._reader.ask(lambda connection: connection.execute(statement).fetchall())
    return found


async def list_refusals(ledger: Any) -> list[Refused]:
    found: list[Refused] = ledger.refusals()
    return found


def open_sqlite(folder: Path) -> SqliteLedger:
    if not (database := folder / "audit.db").exists():
        write_empty(database)
    return SqliteLedger.open(database, queue_rows=50_000)


@dataclass(frozen=True)
class Store:
    """One implementation of the Ledger protocol."""

    open: Callable[[Path], Ledger]
    gaps: Callable[[Any], Any]
    refusals: Callable[[Any], Any]


STORES = {
    "lists": Store(lambda _: ListLedger(), list_gaps, list_refusals),
    "sqlite": Store(open_sqlite, sql_gaps, sql_refusals),
}


@pytest.fixture(params=[*STORES, pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_database")
        return Store(lambda _: PostgresLedger.open(url, queue_rows=50_000), sql_gaps, sql_refusals)
    return STORES[request.param]


@pytest.fixture
async def ledger(store: Store, tmp_path: Path) -> AsyncIterator[Ledger]:
    ledger = store.open(tmp_path)
    yield ledger
    await ledger.close()
