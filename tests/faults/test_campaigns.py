"""A round of a campaign, where `make faults` plays all, and proof that the check after a round can fail."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from tests.faults.__main__ import run_round
from tests.faults.campaigns import CAMPAIGNS, Campaign
from tests.faults.health_watch import HealthWatch
from tests.faults.ledger import Findings, Journal, examine
from tests.faults.sessions_world import ANSWER, Said, judge
from tests.faults.world import can_mount, wait_for
from tests.support.ports import own_port

NAMES = {
    "kill -9 of both",
    "lost acks",
    "log that stands still",
    "ledger and log on one full disk",
    "connections of turns cut",
    "kill -9 of workers and their supervisor",
    "sessions' disk full at any write, short writes",
}
PLAYED = [campaign for campaign in CAMPAIGNS if campaign.name in NAMES]
ROWS = [f"row-{number}" for number in range(500)]
SCHEMA = """
    CREATE TABLE tool_call_log (id TEXT, provider_call_id TEXT, outcome TEXT, tool_name TEXT, args_summary TEXT);
    CREATE TABLE cost_log (id TEXT);
    CREATE INDEX by_id ON tool_call_log (id);
"""


@pytest.mark.long(nightly=True)
@pytest.mark.parametrize("campaign", PLAYED, ids=[campaign.name for campaign in PLAYED])
def test_a_round_loses_and_doubles_nothing(campaign: Campaign) -> None:
    if campaign.mounts and not can_mount():
        pytest.skip("this process may not mount a small file system")
    line, problems = run_round(campaign, "test")
    assert problems == []
    assert line.accepted > 0
    assert line.health_asked > 0


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A ledger that holds each of ROWS once, as far as the check looks at it, without what forbids doubles."""
    path = tmp_path / "audit.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(SCHEMA)
        connection.executemany(
            "INSERT INTO tool_call_log VALUES (?, ?, 'succeeded', 'bash', '{}')", [(row, row) for row in ROWS]
        )
    return path


def doctored(database: Path, *statements: str, dropped: int = 0) -> Findings:
    with closing(sqlite3.connect(database)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
    lost = frozenset(f"dropped-{number}" for number in range(dropped))
    return examine(database, Journal(frozenset(ROWS) | lost, frozenset(ROWS), lost))


def counts(findings: Findings) -> tuple[int, int, int]:
    assert bool(findings.problems) == any((findings.lost, findings.doubled, findings.corrupt))
    return findings.lost, findings.doubled, findings.corrupt


def test_a_whole_ledger_passes(database: Path) -> None:
    assert counts(doctored(database)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM tool_call_log WHERE id = 'row-7'", (1, 0, 0)),
        ("UPDATE tool_call_log SET outcome = 'interrupted' WHERE id = 'row-7'", (1, 0, 0)),
        ("INSERT INTO tool_call_log SELECT * FROM tool_call_log WHERE id = 'row-7'", (0, 1, 0)),
        ("INSERT INTO cost_log VALUES ('row-7')", (0, 1, 0)),
        ("INSERT INTO tool_call_log VALUES ('row-8b', 'row-8', 'succeeded', 'bash', '{}')", (0, 1, 1)),
        ("INSERT INTO cost_log VALUES ('nobody')", (0, 0, 1)),
        ("DROP TABLE cost_log", (0, 0, 1)),
    ],
)
def test_the_check_notices(database: Path, statement: str, expected: tuple[int, int, int]) -> None:
    assert counts(doctored(database, statement)) == expected


def test_the_check_notices_refused_rows_that_no_gap_row_tells(database: Path) -> None:
    gap = "INSERT INTO tool_call_log VALUES ('gap', '{0}', 'failed', 'onrecord.gap', '{1}')"
    told = gap.format("", '{"tool_calls": 2, "model_requests": 1}')
    assert counts(doctored(database, told, dropped=3)) == (0, 0, 0)
    assert counts(doctored(database, dropped=4)) == (1, 0, 0)


def test_the_check_notices_a_page_that_was_overwritten(database: Path) -> None:
    database.write_bytes(database.read_bytes()[:-4096] + b"\xff" * 4096)
    assert counts(doctored(database))[2] > 0


def test_the_check_notices_what_is_no_database(database: Path) -> None:
    database.write_bytes(b"not a database, " * 1000)
    assert examine(database, Journal(frozenset(), frozenset(), frozenset())).corrupt == 1


@pytest.mark.parametrize("truth", ["serves", "is gone"])
def test_the_health_watch_notices_what_is_untrue(truth: str) -> None:
    with own_port() as port, closing(HealthWatch(f"127.0.0.1:{port}")) as watch:
        server, told = grpc.server(ThreadPoolExecutor(1)), HealthServicer()
        add_HealthServicer_to_server(told, server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        watch.must_tell(serves=True)
        assert watch.untrue == []
        if truth == "serves":
            told.set("", HealthCheckResponse.NOT_SERVING)
        else:
            watch.must_be_silent()
        wait_for(lambda: bool(watch.untrue), "nothing untrue was noticed")
        server.stop(None).wait()
        compared = watch.compared
        watch.must_be_silent()
        wait_for(lambda: watch.compared > compared, "silence was never compared")


def test_a_line_that_a_kill_cut_short_does_not_count(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_text("i row-1\na row-1\ni row-2\na row-")
    assert Journal.read(journal) == Journal(frozenset({"row-1", "row-2"}), frozenset({"row-1"}), frozenset())


ASKED, ANSWERED, AGAIN = ("user", "client 1 asks a"), ANSWER, ("user", "client 1 asks b")
SHORTENED = ("user", f"[What was said before this was left out.]\n\n{AGAIN[1]}")


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ([ASKED, ANSWERED, AGAIN, ANSWERED], (0, 0, 0)),
        ([ASKED, ANSWERED, AGAIN], (0, 0, 0)),
        ([ASKED, ANSWERED], (2, 0, 0)),
        ([ASKED], (3, 0, 0)),
        ([ASKED, AGAIN], (2, 0, 0)),
        ([ASKED, ANSWERED, ANSWERED, AGAIN], (1, 0, 0)),
        ([ASKED, ANSWERED, AGAIN, ANSWERED, AGAIN], (0, 1, 0)),
        ([ASKED, ("assistant", "Gone."), AGAIN], (2, 0, 0)),
        ([ANSWERED, AGAIN], (3, 0, 0)),
    ],
    ids=[
        *("whole", "its end unseen", "torn", "torn before an answer", "a hole", "twice", "asked twice"),
        *("another answer", "without its beginning"),
    ],
)
def test_what_a_model_saw_or_a_client_was_told_and_no_session_has_is_found(
    kept: Said, expected: tuple[int, int, int]
) -> None:
    findings = Findings()
    judge(findings, [[ASKED], [ASKED, ANSWERED, AGAIN], [SHORTENED]], [kept], [ASKED[1]])
    assert counts(findings) == expected


@pytest.mark.parametrize(
    ("seen", "lost"),
    [([SHORTENED, ANSWERED], 0), ([AGAIN, ANSWERED], 1), ([SHORTENED, AGAIN], 1)],
    ids=["told", "not told", "told, and then something else"],
)
def test_a_model_may_see_the_end_of_a_session_only_where_it_is_told_so(seen: Said, lost: int) -> None:
    findings = Findings()
    judge(findings, [seen], [[ASKED, ANSWERED, AGAIN, ANSWERED]], [])
    assert counts(findings) == (lost, 0, 0)
