"""The stops of all gateways that share the database: what is stopped at one is stopped at all, and after a restart.

NOTIFY has them looked at when one is made or lifted; without a word they are looked at every second.
"""

import asyncio
from collections.abc import Collection, Sequence

from google.protobuf.message import DecodeError
from onrecord.gateway.v1 import control_pb2 as pb

from gateway_svc.conversations.postgres.database import Database
from gateway_svc.errors import InvalidRequest, StoreUnavailable
from gateway_svc.stopping.kept import MAX_LIFTED, Found, Ours
from gateway_svc.stopping.stop import check_scope

STOPS = "gateway_stops"
"""The channel of NOTIFY, named as the table."""
_PUT = f"""WITH put AS (
    INSERT INTO gateway_stops (id, stop, lets_calls_end)
    SELECT * FROM unnest(%(ids)s::text[], %(stops)s::bytea[], %(lets_calls_end)s::boolean[])
    ON CONFLICT DO NOTHING RETURNING 1
)
SELECT pg_notify('{STOPS}', '') FROM put"""
_FIND = """SELECT id, stop, lets_calls_end, lifted_at IS NOT NULL FROM gateway_stops
WHERE lifted_at IS NULL OR id = ANY(%(ids)s)"""
_LIFT = f"""WITH lifted AS (
    UPDATE gateway_stops SET lifted_at = clock_timestamp() WHERE id = ANY(%(ids)s) AND lifted_at IS NULL RETURNING 1
)
SELECT pg_notify('{STOPS}', '') FROM lifted"""
_FORGET = f"""DELETE FROM gateway_stops WHERE id IN (
    SELECT id FROM gateway_stops WHERE lifted_at IS NOT NULL ORDER BY lifted_at DESC OFFSET {MAX_LIFTED}
)"""


class PostgresStops:
    """See gateway_svc.stopping.kept.SharedStops."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.changed = asyncio.Event()

    async def save(self, stops: Sequence[Ours], lifted: Sequence[str]) -> OSError | None:
        await self._put(stops)
        await self._database.ask(_LIFT, {"ids": list(lifted)})
        await self._database.ask(_FORGET)
        return None

    async def exchange(self, untold: Sequence[Ours], ids: Collection[str]) -> Found:
        if untold:
            await self._put(untold)
        in_force, lifted = list[Ours](), set[str]()
        for stop_id, stop, lets_calls_end, is_lifted in await self._database.ask(_FIND, {"ids": list(ids)}):
            if is_lifted:
                lifted.add(stop_id)
            else:
                in_force.append(Ours(_read(stop_id, stop), lets_calls_end))
        return Found(tuple(in_force), frozenset(lifted))

    async def _put(self, stops: Sequence[Ours]) -> None:
        values = {
            "ids": [stop.id for stop, _ in stops],
            "stops": [stop.SerializeToString() for stop, _ in stops],
            "lets_calls_end": [lets_calls_end for _, lets_calls_end in stops],
        }
        await self._database.ask(_PUT, values)


def _read(stop_id: str, stop: bytes) -> pb.Stop:
    try:
        found = pb.Stop.FromString(stop)
        check_scope(found.scope)
    except (DecodeError, InvalidRequest):
        raise StoreUnavailable(f"the sessions' database has a stop ({stop_id}) that this version cannot read") from None
    return found
