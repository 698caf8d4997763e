"""The questions of `make bench-queries`, of a ledger in PostgreSQL and of one in SQLite with the same rows.

They are asked when all that is made in the writer's idle time has been made, and PostgreSQL has its index of texts.
"""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from audit_svc.postgres.store import PostgresLedger
from audit_svc.postgres.text.trigrams import MAKE_INDEX
from bench.data import DAYS, fill, fill_store
from bench.figures import Figure, Target, percentile
from bench.postgres.services import start_replica, wait_until_summed
from bench.queries import QUESTIONS, Ledger, choose_samples
from demo.postgres import PostgresServer
from service_kit.paging import use_key


class PostgresAsked(Ledger):
    """A ledger in PostgreSQL, in its own process, and what to query in it."""

    def __init__(self, url: str) -> None:
        self.service = start_replica(url)
        with closing(psycopg.connect(url)) as connection:

            def one(sql: str, *arguments: int) -> tuple[Any, ...]:
                row = connection.execute(sql, arguments).fetchone()
                if row is None:
                    raise RuntimeError("the ledger has no such session")
                return row

            self.samples = choose_samples(one, "%s")
            (self._page_key,) = one("SELECT page_key FROM ledger_lease WHERE id = 1")

    def use_page_key(self) -> None:
        """See Ledger."""
        use_key(bytes(self._page_key))


def measure(place: Path, server: PostgresServer, *, short: bool) -> list[Figure]:
    """The figures of a million calls in 90 days (short: 20,000). The targets are those of SQLite at ten million."""
    calls = 20_000 if short else 1_000_000
    url = server.create_database("answers")
    asyncio.run(_fill(url, calls))
    for statement in MAKE_INDEX:
        server.execute(statement, "answers")
    server.execute("VACUUM (ANALYZE)", "answers")  # as autovacuum does in its time
    asyncio.run(fill(place / "audit.db", calls, DAYS))
    sqlite, postgres = Ledger(place), PostgresAsked(url)
    figures = []
    try:
        for question in QUESTIONS:
            times = (30 if short else 300) if question.percent == 99 else (9 if short else 51)
            one, other = list[float](), list[float]()
            for _ in range(3):
                one += asyncio.run(sqlite.ask(question, times // 3))
                other += asyncio.run(postgres.ask(question, times // 3))
            ours, theirs = percentile(other, question.percent), percentile(one, question.percent)
            name = f"{question.name}, p{question.percent}, against a ledger in SQLite"
            figures.append(Figure(name, "ms", ours, theirs, ours / theirs, Target(max_ours=question.max_ms)))
    finally:
        for ledger in (sqlite, postgres):
            ledger.service.terminate()
    return figures


async def _fill(url: str, calls: int) -> None:
    store = PostgresLedger.open(url, queue_rows=100_000)
    try:
        await fill_store(store, calls, DAYS)
        await asyncio.to_thread(wait_until_summed, url)
    finally:
        await store.close()
