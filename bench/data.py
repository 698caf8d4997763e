"""Makes a large ledger through the store's own writer, for bench.queries (`make bench-data`)."""

import asyncio
import random
import shutil
import time
from collections import deque
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

from google.protobuf.message import Message
from onrecord.audit.v1 import audit_pb2

from audit_svc.ledger.batch import Batch
from audit_svc.ledger.columns import Column, Labels
from audit_svc.ledger.protocol import Ledger
from audit_svc.ledger.tables import COST_COLUMNS, SESSION_COLUMNS, TOOL_CALL_COLUMNS
from audit_svc.ledger.valid_rows import ValidRows
from audit_svc.sqlite.open.connection import open_for_reading
from audit_svc.sqlite.store import SqliteLedger
from bench.services import wait_until_indexed
from bench.sizes import show
from service_kit.terminal.command import Argument, BadParameter, Option, echo
from service_kit.terminal.program import run

CALLS_A_SESSION = 50
CALLS_A_REQUEST = 2.5
DAYS = 90
RARE_TOOL = "deploy"
RARE_TEXT = "needle-in-the-hay"
"""One call in 20,000 contains both."""

Row = dict[str, Any]
"""Values by column name."""

_BATCH_ROWS = 1_250
_BATCHES_WAITING = 8
_SESSIONS_AT_A_TIME = 32
_DAY_MS = 86_400_000
_ENGINES = (
    ("ollama", "qwen3:4b"),
    ("ollama", "llama3.2:3b"),
    ("openai", "gpt-x"),
    ("openai", "gpt-x-mini"),
    ("claude", "claude-x"),
)
_TOOLS = ("read", "bash", "webfetch", "write", "edit", "glob", "grep")
_TOOL_WEIGHTS = (30, 25, 10, 8, 12, 5, 10)
_ENDS = ("succeeded", "failed", "timed_out", "denied", "cancelled", "invalid_call")
_END_WEIGHTS = (930, 50, 8, 6, 4, 2)
_TAILS = 20_000
_AGENTS = (("onrecord", "0.1.0"), ("claude-code", "2.1.0"), ("codex", "0.40.0"), ("opencode", "1.2.0"))


@dataclass(slots=True)
class _Session:
    id: str
    turn_id: str
    engine: str
    model: str
    labels: dict[str, str]
    agent: tuple[str, str]
    began_at: int
    calls: int = 0


def batches(tool_calls: int, days: int, end_ms: int) -> Iterator[Batch]:
    """Tool calls spread evenly over the days before end_ms, in dozens of concurrent sessions, with their requests."""
    chance = random.Random(7)
    tails = [_tail(chance, number) for number in range(_TAILS)]
    began_at = end_ms - days * _DAY_MS
    live = [_session(chance, began_at, number) for number in range(_SESSIONS_AT_A_TIME)]
    # The first sessions are shorter, or all would end at once.
    for session in live:
        session.calls = chance.randrange(CALLS_A_SESSION)
    begun = len(live)
    calls: list[Row] = []
    costs: list[Row] = []
    ended: list[Row] = []
    for number in range(tool_calls):
        now_ms = began_at + number * days * _DAY_MS // tool_calls
        at = chance.randrange(_SESSIONS_AT_A_TIME)
        session = live[at]
        calls.append(_call(chance, session, tails[chance.randrange(_TAILS)], now_ms))
        session.calls += 1
        if chance.random() * CALLS_A_REQUEST < 1:
            costs.append(_cost(chance, session, now_ms))
        if session.calls >= CALLS_A_SESSION:
            ended.append(_ended(session, now_ms))
            live[at] = _session(chance, now_ms, begun)
            begun += 1
        if len(calls) == _BATCH_ROWS:
            yield _batch(calls, costs, ended)
            calls, costs, ended = [], [], []
    yield _batch(calls, costs, [*ended, *(_ended(session, end_ms) for session in live)])


async def fill(path: Path, tool_calls: int, days: int = DAYS) -> float:
    """Makes a ledger of the last days at path; returns the seconds it took."""
    started = time.perf_counter()
    store = SqliteLedger.open(path, queue_rows=100_000)
    try:
        await fill_store(store, tool_calls, days)
        await asyncio.to_thread(wait_until_indexed, path)
    finally:
        await store.close()
    return time.perf_counter() - started


def have(folder: Path, tool_calls: int, days: int = DAYS) -> None:
    """Makes a ledger in a folder, unless one is there. One whose making was broken off is made anew."""
    if (folder / "audit.db").exists():
        return
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    seconds = asyncio.run(fill(part / "audit.db", tool_calls, days))
    part.rename(folder)
    echo(f"{tool_calls:,} tool calls made in {seconds:.0f} s", err=True)


async def fill_store(store: Ledger, tool_calls: int, days: int) -> None:
    """Gives a store the tool calls of the last days."""
    started = time.perf_counter()
    waiting: deque[Awaitable[object]] = deque()
    rows, step = 0, max(1, tool_calls // 10)
    for batch in batches(tool_calls, days, time.time_ns() // 1_000_000):
        waiting.append(store.record(batch))
        if len(waiting) >= _BATCHES_WAITING:
            await waiting.popleft()
        rows += len(batch.tool_calls)
        if rows % step < len(batch.tool_calls):
            echo(f"{rows:,} tool calls after {time.perf_counter() - started:.0f} s", err=True)
    for commit in waiting:
        await commit


def _batch(calls: list[Row], costs: list[Row], sessions: list[Row]) -> Batch:
    """Builds columns directly, since ingest over the wire is measured elsewhere."""
    return Batch(
        None,
        _accepted(calls, _UNSET_CALL, TOOL_CALL_COLUMNS),
        _accepted(costs, _UNSET_COST, COST_COLUMNS),
        _accepted(sessions, _UNSET_SESSION, (*SESSION_COLUMNS, Labels("labels"))),
        (),
    )


def _accepted(rows: list[Row], unset: Row, columns: Sequence[Column]) -> ValidRows:
    """Rows from values by column name; columns that a row does not name get the wire's default."""
    values = [value for row in rows for value in (unset | row).values()]
    if len(values) != len(rows) * len(unset):
        raise ValueError("a row names a column that its table does not have")
    return ValidRows(values, columns, range(len(rows)))


def _unset(columns: Sequence[Column], message: Message) -> Row:
    values = ((column, attrgetter(column.wire_name)(message)) for column in columns)
    return {column.name: column.store([value], [message])[0] for column, value in values}


_UNSET_CALL = _unset(TOOL_CALL_COLUMNS, audit_pb2.AuditRow())
_UNSET_COST = _unset(COST_COLUMNS, audit_pb2.CostRow())
_UNSET_SESSION = _unset(SESSION_COLUMNS, audit_pb2.SessionRow()) | {"labels": {}}


def _id(chance: random.Random, now_ms: int) -> str:
    """A UUIDv7 with a given time."""
    time_part, tail = f"{now_ms:012x}", f"{chance.getrandbits(72):018x}"
    return f"{time_part[:8]}-{time_part[8:]}-7{tail[:3]}-b{tail[3:6]}-{tail[6:]}"


def _session(chance: random.Random, now_ms: int, number: int) -> _Session:
    engine, model = chance.choice(_ENGINES)
    # There are many users with few sessions each, and few teams with many.
    labels = {"user": f"user-{chance.randrange(2_000)}", "team": f"team-{number % 20}", "env": "production"}
    agent = _AGENTS[number % len(_AGENTS)]
    return _Session(_id(chance, now_ms), _id(chance, now_ms), engine, model, labels, agent, now_ms)


def _tail(chance: random.Random, number: int) -> Row:
    """The values of a call that are not its session's."""
    tool = RARE_TOOL if number == 0 else chance.choices(_TOOLS, _TOOL_WEIGHTS)[0]
    end = chance.choices(_ENDS, _END_WEIGHTS)[0]
    word = RARE_TEXT if number == 1 else f"part-{chance.randrange(500)}"
    summary = f"path: src/{word}/module_{chance.randrange(900)}.py, offset: {chance.randrange(2_000)}, limit: 2000"
    return {
        "tool_name": tool,
        "args_summary": summary,
        "exit_code": int(chance.random() < 0.1) if tool == "bash" and end == "succeeded" else None,
        "http_status": chance.choice((200, 200, 200, 404)) if tool == "webfetch" and end == "succeeded" else None,
        "error": None if end == "succeeded" else f"the tool {end.replace('_', ' ')}",
        "duration_ms": int(chance.lognormvariate(4.5, 1.5)),
        "result_bytes": chance.randrange(50_000),
        "outcome": end,
    }


def _call(chance: random.Random, session: _Session, tail: Row, now_ms: int) -> Row:
    row_id = _id(chance, now_ms)
    return {
        **tail,
        "id": row_id,
        "session_id": session.id,
        "turn_id": session.turn_id,
        "engine": session.engine,
        "model": session.model,
        "provider_call_id": f"call_{row_id[-12:]}",
        "redaction_version": 1,
        **_who(session),
        "created_at": now_ms,
    }


def _cost(chance: random.Random, session: _Session, now_ms: int) -> Row:
    read, written = chance.randrange(500, 30_000), chance.randrange(20, 2_000)
    return {
        "id": _id(chance, now_ms),
        "session_id": session.id,
        "turn_id": session.turn_id,
        "engine": session.engine,
        "model": session.model,
        "requested_model": session.model,
        "input_tokens": read,
        "output_tokens": written,
        "cached_input_tokens": read // 2,
        "cost_micros": 0 if session.engine == "ollama" else read * 2 + written * 8,
        "error": "the model server answered 503" if chance.random() < 0.01 else None,
        "duration_ms": 900 + written,
        **_who(session),
        "created_at": now_ms,
    }


def _who(session: _Session) -> Row:
    name, version = session.agent
    return {"principal": session.labels["user"], "agent": name, "agent_version": version}


def _ended(session: _Session, now_ms: int) -> Row:
    return {
        "id": session.id,
        "revision": 1,
        "engine": session.engine,
        "model": session.model,
        "status": "failed" if int(session.id[-2:], 16) < 8 else "idle",
        "turns": 1,
        "requests": 20,
        "tool_calls": session.calls,
        "input_tokens": 300_000,
        "output_tokens": 20_000,
        "known_cost_micros": 700_000,
        "created_at": session.began_at,
        "updated_at": now_ms,
        "labels": session.labels,
    }


def main(
    path: Annotated[Path, Argument(help="The database to make.")],
    tool_calls: Annotated[int, Option(min=1, help="How many.")] = 10_000_000,
    days: Annotated[int, Option(min=1, help="In how many days up to now.")] = DAYS,
) -> None:
    """Make a ledger to measure queries on, and print its size on disk."""
    if path.exists():
        raise BadParameter(f"{path} is there already: remove it first")
    seconds = asyncio.run(fill(path, tool_calls, days))
    echo(f"{tool_calls:,} tool calls in {seconds:.0f} s")
    with closing(open_for_reading(path)) as connection:
        show(connection)


if __name__ == "__main__":
    run(main)
