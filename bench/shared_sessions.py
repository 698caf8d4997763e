"""Sessions in PostgreSQL: what a turn's begin and end take, against files in the same run, by turns; both synced."""

import asyncio
import logging
import statistics
import time
from pathlib import Path

import structlog
from onrecord.common.v1 import common_pb2
from uuid_utils import uuid7

from bench.figures import Figure, Target, compare
from demo.postgres import PostgresServer
from gateway_svc.conversations.files.store import FileConversations
from gateway_svc.conversations.postgres.store import PostgresConversations
from gateway_svc.conversations.protocol import Conversations
from gateway_svc.conversations.session import SessionState
from gateway_svc.messages import AssistantMessage, UserMessage

MORE_MS = 5.0


def measure(place: Path, *, short: bool) -> list[Figure]:
    """The figures; the PostgreSQL server is started for them."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with PostgresServer() as server:
        return asyncio.run(_measure(place, server.create_database("sessions"), rounds=30 if short else 300))


async def _measure(place: Path, url: str, rounds: int) -> list[Figure]:
    homes: dict[str, Conversations] = {"files": FileConversations(place), "postgres": PostgresConversations(url)}
    begins: dict[str, list[float]] = {name: [] for name in homes}
    ends: dict[str, list[float]] = {name: [] for name in homes}
    ids = {}
    for name, home in homes.items():
        state = SessionState(id=str(uuid7()), revision=1)
        await home.create(state, synced=True)
        ids[name] = state.id
        await _turn(home, state.id)
    for _ in range(rounds):
        for name, home in homes.items():
            begin, end = await _turn(home, ids[name])
            begins[name].append(begin)
            ends[name].append(end)
    for home in homes.values():
        await home.aclose()
    figures = []
    for what, took in (("begin", begins), ("end", ends)):
        figures.append(
            compare(f"a turn's {what}, sessions in PostgreSQL; in files", "ms", took["postgres"], took["files"], None)
        )
    both = {name: [one + other for one, other in zip(begins[name], ends[name], strict=True)] for name in homes}
    more = statistics.median(both["postgres"]) - statistics.median(both["files"])
    return [
        *figures,
        Figure("a turn's begin and end take longer in PostgreSQL by", "ms", more, target=Target(max_ours=MORE_MS)),
    ]


async def _turn(home: Conversations, session_id: str) -> tuple[float, float]:
    """Milliseconds of a turn's begin and of its end."""
    began = time.perf_counter()
    lease = await home.open(session_id)
    lease.append(UserMessage("What do you know of the next number, and of those that come after it?"))
    lease.state.status = common_pb2.SESSION_STATUS_RUNNING
    await lease.save()
    begun = time.perf_counter()
    lease.append(AssistantMessage("So it is, as far as anybody knows."))
    await lease.kept()
    ending = time.perf_counter()
    lease.state.status = common_pb2.SESSION_STATUS_IDLE
    await lease.save()
    await lease.close()
    return (begun - began) * 1000, (time.perf_counter() - ending) * 1000
