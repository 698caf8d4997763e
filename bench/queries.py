"""How long the ledger takes to answer over gRPC: with ten times the rows, and against plain SQL over the rows.

Ten times the rows are ten times the days of the same service, or as many days of ten times the traffic. A page costs
the same in both; usage does not, so it is asked of both.
"""

import asyncio
import math
import random
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import apsw
import grpc
from google.protobuf.message import Message
from onrecord.audit.v1 import questions_pb2, questions_pb2_grpc
from onrecord.common.v1 import common_pb2

from audit_svc.ledger.query import fingerprint_of
from bench import reading
from bench.data import DAYS, RARE_TEXT, RARE_TOOL, have
from bench.figures import Figure, Target, percentile, table
from bench.services import start_ledger, wait_until_indexed
from demo.processes import REPOSITORY
from recording.channel.options import CLIENT_OPTIONS
from service_kit.paging import encode_token, keep_key
from service_kit.terminal.command import Option, echo
from service_kit.terminal.program import run

PATIENCE_SECONDS = 10.0
"""The longest time for a query. Plain SQL that takes longer is stopped and counted as this."""

Listing = questions_pb2.ListToolCallsRequest
Usage = questions_pb2.SummarizeUsageRequest
Calls = questions_pb2.ToolCallFilter
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
SELECT = "SELECT * FROM tool_call_log"
NEWEST = "ORDER BY created_at DESC, position DESC LIMIT"
FEW = 20
"""The page size for rare matches, so that a deep page of a million calls is as large."""
SUMS = "SELECT engine, tool_name, count(*), count(error), sum(result_bytes), avg(duration_ms) FROM tool_call_log"

SESSION_SUMS = "SELECT {}, count(*), count(error), sum(result_bytes), avg(duration_ms) FROM tool_call_log {} GROUP BY 1"


@dataclass(frozen=True)
class Sample:
    """What to query: an existing session, one of its calls, and a time within the ledger."""

    session_id: str
    call_id: str
    user: str
    time_ms: int
    last_ms: int


@dataclass(frozen=True)
class Question:
    """One line of the table."""

    name: str
    method: str
    request: Callable[[Sample], Message]
    sql: str
    arguments: Callable[[Sample], Sequence[int | str]]
    max_ms: float
    """At the largest ledger."""
    percent: int = 99
    max_ratio: float = 1.5
    """None if the answer itself is ten times as large, or if only max_ms bounds it."""


def listed(
    name: str,
    sql: str,
    arguments: Callable[[Sample], Sequence[int | str]],
    size: int = 100,
    target: tuple[float, float] = (20, 1.5),
    **filters: Any,
) -> list[Question]:
    """The first page with filters, and one from the middle of the ledger.

    target: milliseconds, and the ratio to a tenth of the rows.
    """
    max_ms, max_ratio = target

    def deep(sample: Sample) -> Message:
        request = Listing(page_size=size, filter=Calls(**filters))
        request.page_token = encode_token((sample.time_ms, 0), fingerprint_of(request))
        return request

    where = f"WHERE {sql} AND" if sql else "WHERE"
    return [
        Question(
            f"calls, {name}, first page",
            "ListToolCalls",
            lambda _: Listing(page_size=size, filter=Calls(**filters)),
            f"{SELECT} {where} 1 {NEWEST} {size + 1}",
            arguments,
            max_ms,
            max_ratio=max_ratio,
        ),
        Question(
            f"calls, {name}, deep page",
            "ListToolCalls",
            deep,
            f"{SELECT} {where} (created_at, position) < (?, 0) {NEWEST} {size + 1}",
            lambda sample: (*arguments(sample), sample.time_ms),
            max_ms,
            max_ratio=max_ratio,
        ),
    ]


def of_a_day(name: str, off_ms: int) -> Question:
    """Usage of 24 hours that end off_ms before the last full hour."""

    def ends(sample: Sample) -> tuple[int, int]:
        end_ms = sample.last_ms // HOUR_MS * HOUR_MS - off_ms
        return end_ms - DAY_MS, end_ms

    def ask(sample: Sample) -> Message:
        begin_ms, end_ms = ends(sample)
        wanted = Calls(created_from_ms=begin_ms, created_before_ms=end_ms)
        return Usage(group_by=["engine", "tool"], filter=wanted)

    sql = f"{SUMS} WHERE created_at >= ? AND created_at < ? GROUP BY 1, 2"
    return Question(f"usage by engine and tool, {name}", "SummarizeUsage", ask, sql, ends, 50, 50)


TEXTS = {
    "text": "module_12",
    "text of one in 900": "module_123.",
    "rare text": RARE_TEXT,
    "text that is nowhere": "module_999",
    "text whose trigrams are in other rows": "00, limit: 1000",
    "text of frequent trigrams": "limit: 2000 off",
    "text of two characters": "zq",
}


def texts(name: str, text: str) -> list[Question]:
    """Text searches. One call in 20,000 matches, so that a deep page of a million calls is as large."""
    return listed(name, "args_summary LIKE ?", lambda _: (f"%{text}%",), FEW, (500, math.inf), args_contain=text)


def summed(name: str, groups: list[str], sql: str, max_ms: float) -> Question:
    """Usage of all time by session; ten million calls have ten times as many sessions as a million."""
    return Question(name, "SummarizeUsage", lambda _: Usage(group_by=groups), sql, lambda _: (), max_ms, 50, math.inf)


QUESTIONS = [
    Question(
        "a session's timeline",
        "GetSessionRecord",
        lambda sample: questions_pb2.GetSessionRecordRequest(session=questions_pb2.RowKey(id=sample.session_id)),
        "SELECT * FROM tool_call_log WHERE session_id = ? ORDER BY created_at, position",
        lambda sample: (sample.session_id,),
        10,
    ),
    *listed("all", "", lambda _: ()),
    *listed("tool", "tool_name = ?", lambda _: ("bash",), tool_name="bash"),
    *listed("rare tool", "tool_name = ?", lambda _: (RARE_TOOL,), FEW, tool_name=RARE_TOOL),
    *listed("engine", "engine = ?", lambda _: ("openai",), engine="openai"),
    *listed("model", "model = ?", lambda _: ("gpt-x",), model="gpt-x"),
    *listed("errors", "error IS NOT NULL", lambda _: (), has_error=True),
    *listed(
        "outcome",
        "outcome = 'timed_out'",
        lambda _: (),
        outcomes=[common_pb2.OUTCOME_TIMED_OUT],
    ),
    *listed(
        "engine, tool, outcome",
        "engine = 'claude' AND tool_name = 'grep' AND outcome = 'denied'",
        lambda _: (),
        engine="claude",
        tool_name="grep",
        outcomes=[common_pb2.OUTCOME_DENIED],
    ),
    *listed(
        "label of many",
        "session_id IN (SELECT session_id FROM session_labels WHERE key = 'team' AND value = 'team-3')",
        lambda _: (),
        labels={"team": "team-3"},
    ),
    *listed(
        "label of few",
        "session_id IN (SELECT session_id FROM session_labels WHERE key = 'user' AND value = 'user-7')",
        lambda _: (),
        labels={"user": "user-7"},
    ),
    *(question for name, text in TEXTS.items() for question in texts(name, text)),
    Question(
        "sessions, label and model",
        "ListSessionRecords",
        lambda _: questions_pb2.ListSessionRecordsRequest(
            filter=questions_pb2.SessionFilter(model="gpt-x", labels={"team": "team-3"})
        ),
        "SELECT * FROM sessions WHERE model = 'gpt-x' AND id IN "
        f"(SELECT session_id FROM session_labels WHERE key = 'team' AND value = 'team-3') {NEWEST} 101",
        lambda _: (),
        20,
    ),
    of_a_day("24 whole hours", 0),
    # The worst case: the most rows are read, to be added or subtracted.
    of_a_day("24 h that begin and end at half past", HOUR_MS // 2),
    Question(
        "usage by engine and tool, all time",
        "SummarizeUsage",
        lambda _: Usage(group_by=["engine", "tool"]),
        f"{SUMS} GROUP BY 1, 2",
        lambda _: (),
        50,
        50,
        math.inf,
    ),
    summed("usage by session, all time", ["session"], SESSION_SUMS.format("session_id", ""), 100),
    summed(
        "usage by a label of many sessions, all time",
        ["label:team"],
        SESSION_SUMS.format("value", "LEFT JOIN session_labels l USING (session_id, recorded_by) WHERE key = 'team'"),
        1000,
    ),
    Question(
        "usage by user, label of few",
        "SummarizeUsage",
        lambda sample: Usage(group_by=["label:user", "tool"], filter=Calls(labels={"user": sample.user})),
        f"{SUMS} WHERE session_id IN (SELECT session_id FROM session_labels WHERE key = 'user' AND value = ?) "
        "GROUP BY 1, 2",
        lambda sample: (sample.user,),
        300,
        50,
        math.inf,
    ),
]


def choose_samples(one: Callable[..., Sequence[Any]], placeholder: str = "?") -> list[Sample]:
    """Sessions of a ledger to ask about, the same of equal ledgers. one: gives the only row of a statement's answer."""
    chance = random.Random(7)
    sessions, last_ms = one("SELECT (SELECT max(position) FROM sessions), (SELECT max(created_at) FROM tool_call_log)")
    find = (
        "SELECT id, (SELECT min(id) FROM tool_call_log WHERE session_id = sessions.id), value, updated_at "
        "FROM sessions JOIN session_labels ON session_id = id AND key = 'user' "
        f"WHERE sessions.position = {placeholder}"
    )
    chosen = [one(find, chance.randrange(sessions) + 1) for _ in range(500)]
    return [Sample(session, call, user, time_ms, last_ms) for session, call, user, time_ms in chosen]


class Ledger:
    """A ledger in its own process, and what to query in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "audit.db"
        connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY)
        self.samples = choose_samples(partial(_one, connection))
        connection.close()
        self.service = start_ledger(folder, listen_seconds=600)
        wait_until_indexed(self.path)

    def use_page_key(self) -> None:
        """Has this process make page tokens that the ledger takes: some requests begin at a page of their own."""
        keep_key(self.path.with_name(f"{self.path.name}-page-key"))

    async def ask(self, question: Question, times: int) -> list[float]:
        """The milliseconds of each of `times` answers in sequence, after a warm-up."""
        took: list[float] = []
        self.use_page_key()
        async with grpc.aio.insecure_channel(self.service.address, options=CLIENT_OPTIONS) as channel:
            call = getattr(questions_pb2_grpc.QuestionServiceStub(channel), question.method)
            for number in range(-3, times):
                request = question.request(self.samples[number % len(self.samples)])
                started = time.perf_counter()
                await call(request)
                if number >= 0:
                    took.append((time.perf_counter() - started) * 1000)
                if sum(took) > PATIENCE_SECONDS * 1000:
                    break
        return took

    def plain(self, question: Question, times: int) -> list[float]:
        """The milliseconds of the same question in plain SQL over the rows, with the standard library's sqlite3."""
        connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
        took = []
        for sample in self.samples[:times]:
            started = time.perf_counter()
            give_up = started + PATIENCE_SECONDS
            connection.set_progress_handler(partial(_is_past, give_up), 100_000)
            try:
                connection.execute(question.sql, question.arguments(sample)).fetchall()
            except sqlite3.OperationalError:
                if time.perf_counter() < give_up:
                    raise
            took.append((time.perf_counter() - started) * 1000)
            if sum(took) > PATIENCE_SECONDS * 1000:
                break
        connection.close()
        return took


def _one(connection: apsw.Connection, sql: str, *arguments: int) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = connection.execute(sql, arguments).fetchone()
    if row is None:
        raise RuntimeError("the ledger has no sessions: remove it and make it again")
    return row


def _is_past(end: float) -> bool:
    return time.perf_counter() > end


def measure(small: Ledger, large: Ledger, quiet: Ledger, *, short: bool) -> list[Figure]:
    """Compares, for each question, the large ledger with the small one, and with plain SQL over its rows."""
    figures = []
    for question in QUESTIONS:
        figure, median = compare(question, small, large, "", short=short)
        plain = statistics.median(large.plain(question, 3 if question.max_ms > 20 else 20))
        figures += [figure, Figure("... p50, against plain SQL", "ms", median, plain, median / plain)]
        if question.method == "SummarizeUsage":
            figures.append(compare(question, quiet, large, ", at ten times the traffic", short=short)[0])
    return figures


def compare(question: Question, small: Ledger, large: Ledger, name: str, *, short: bool) -> tuple[Figure, float]:
    """One ledger against another, and the large one's median.

    What is measured is the percentile; the ratio is that of the medians, which other programs on the machine move less.
    """
    times = (30 if short else 300) if question.percent == 99 else (10 if short else 50)
    one, other = list[float](), list[float]()
    for _ in range(3):
        one += asyncio.run(small.ask(question, times // 3))
        other += asyncio.run(large.ask(question, times // 3))
    before, ours = percentile(one, question.percent), percentile(other, question.percent)
    median = statistics.median(other)
    ratio = median / statistics.median(one)
    echo(f"{question.name}{name}: {before:.1f} ms, {ours:.1f} ms, ratio {ratio:.2f}", err=True)
    target = Target(max_ours=question.max_ms, max_ratio=question.max_ratio)
    return Figure(f"{question.name}{name}, p{question.percent}", "ms", ours, before, ratio, target), median


def main(
    short: Annotated[bool, Option("--short", help="A hundredth of the rows: a minute, and noisier.")] = False,
    data: Annotated[
        Path, Option(help="Where ledgers are kept, each in a folder named by its calls and days.")
    ] = REPOSITORY / ".state" / "bench-data",
) -> None:
    """Measure the ledger's answers. Makes the ledgers first if they do not exist."""
    large = 100_000 if short else 10_000_000
    small, whole, quiet = (
        data / name for name in (f"{large // 10}-in-{DAYS // 10}-days", f"{large}", f"{large // 10}")
    )
    folders = {small: (large // 10, DAYS // 10), whole: (large, DAYS), quiet: (large // 10, DAYS)}
    for folder, (calls, days) in folders.items():
        have(folder, calls, days)
    # The sealing process of a service that was killed may still be in its last round.
    with tempfile.TemporaryDirectory(dir=data, prefix="ingest-", ignore_cleanup_errors=True) as copy:
        for path in whole.glob("audit.db*"):
            shutil.copy(path, copy)
        figures = reading.measure(Path(copy), short=short)
    echo(table(figures), err=True)
    ledgers = [Ledger(folder) for folder in folders]
    try:
        figures = [*measure(*ledgers, short=short), *figures]
    finally:
        for ledger in ledgers:
            ledger.service.terminate()
    echo(table(figures))


if __name__ == "__main__":
    run(main)
