"""What labels have spent at all gateways that share the database.

Each gateway has a sum of its own, so that telling it again adds nothing. NOTIFY has the others look; without a word
they look every second.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from gateway_svc.conversations.postgres.database import Database
from gateway_svc.conversations.postgres.membership import ALIVE, Membership
from gateway_svc.errors import StoreUnavailable
from gateway_svc.turns.budgets import Account, is_current

SPENDING = "gateway_spending"
"""The channel of NOTIFY, named as the table."""
LOOK_SECONDS = 1.0
_AT_MOST_EVERY_SECONDS = 0.1
_PUT = f"""WITH put AS (
    INSERT INTO gateway_spending AS known (account, gateway, micros, updated_at)
    SELECT account, %(me)s, micros, clock_timestamp()
    FROM unnest(%(accounts)s::text[], %(micros)s::bigint[]) AS sums (account, micros)
    ON CONFLICT (account, gateway) DO UPDATE
    SET micros = greatest(known.micros, excluded.micros), updated_at = excluded.updated_at
)
SELECT pg_notify('{SPENDING}', '')"""
_READ = """SELECT account, sum(micros)::bigint FROM gateway_spending
WHERE account = ANY(%(accounts)s) AND gateway <> %(me)s GROUP BY account"""
_FOLD = f"""WITH {ALIVE}, gone AS (
    DELETE FROM gateway_spending WHERE gateway <> 0 AND updated_at < clock_timestamp() - interval '1 day'
        AND gateway NOT IN (SELECT number FROM alive)
    RETURNING account, micros
)
INSERT INTO gateway_spending AS known (account, gateway, micros, updated_at)
SELECT account, 0, sum(micros)::bigint, clock_timestamp() FROM gone GROUP BY account
ON CONFLICT (account, gateway) DO UPDATE
SET micros = known.micros + excluded.micros, updated_at = excluded.updated_at"""
_FORGET = """DELETE FROM gateway_spending
WHERE updated_at < clock_timestamp() - interval '40 days' AND account::json ->> 2 <> ''"""


class PostgresSpending:
    """See gateway_svc.turns.budgets.Spent. It belongs to the loop that uses it first."""

    def __init__(self, database: Database, membership: Membership) -> None:
        self._database = database
        self._membership = membership
        self._own = dict[str, int]()
        self._elsewhere = dict[str, int]()
        self._untold = set[str]()
        self._changed = asyncio.Event()
        self._exchanging = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def spent(self, account: Account) -> int:
        return self._own.get(str(account), 0) + self._elsewhere.get(str(account), 0)

    def add(self, accounts: Sequence[Account], micros: int, now: datetime) -> None:
        for account in accounts:
            self._own[str(account)] = self._own.get(str(account), 0) + micros
            self._untold.add(str(account))
        self._changed.set()

    async def look(self, accounts: Sequence[Account]) -> None:
        for account in accounts:
            self._own.setdefault(str(account), 0)
        if not accounts:
            return
        if self._task is None or self._task.done():
            await self._database.ask(_FOLD)
            await self._database.ask(_FORGET)
            self._task = asyncio.create_task(self._follow())
        await self._exchange()

    def notified(self) -> None:
        """Another gateway has told what it has spent."""
        self._changed.set()

    async def _exchange(self) -> None:
        async with self._exchanging:
            me, told = await self._membership.number(), {name: self._own[name] for name in self._untold}
            if told:
                values = {"me": me, "accounts": list(told), "micros": list(told.values())}
                await self._database.ask(_PUT, values)
                self._untold -= {name for name, micros in told.items() if self._own[name] == micros}
            rows = await self._database.ask(_READ, {"me": me, "accounts": list(self._own)})
            self._elsewhere = {account: int(micros) for account, micros in rows}

    async def _follow(self) -> None:
        while True:
            self._changed.clear()
            with suppress(StoreUnavailable):
                await self._exchange()
            now = datetime.now(UTC)
            for name in [name for name in self._own if name not in self._untold and not is_current(name, now)]:
                del self._own[name]
            await asyncio.sleep(_AT_MOST_EVERY_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()

    async def aclose(self) -> None:
        """Tells what can be told now."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            with suppress(StoreUnavailable):
                await self._exchange()
