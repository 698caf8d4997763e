"""The pages over HTTP: who is let in, what they show, and that nothing can be changed through them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest

from audit_svc.sqlite.care.check import check
from audit_svc.ui.canned import QUERIES
from demo.processes import REPOSITORY, environment, run_command
from tests.audit_svc.samples import audit_row, record_request
from tests.audit_svc.stubs import LedgerStub
from tests.audit_svc.test_process import serve
from tests.ui.conftest import HOSTILE, TOKEN, Pages, make_database, serving

pytestmark = pytest.mark.ui

PATHS = [
    "/",
    "/-/ledger",
    "/-/ledger/session?id=s-ada",
    "/ledger",
    "/ledger/tool_call_log",
    "/ledger/tool_call_log.json",
    "/ledger.json?sql=select+1",
    "/-/databases",
    "/-/static/app.css",
    "/nothing",
]


@pytest.mark.parametrize("shown", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN},
                                   {"Cookie": "onrecord_ui=wrong"}, {"Cookie": "onrecord_ui"}], ids=str)  # fmt: skip
def test_without_the_token_there_is_nothing(pages, shown):
    for path in PATHS:
        answer = pages.ask(path, **shown)
        assert (answer.status, "audit-svc ui has printed" in answer.text) == (403, True)
    assert pages.ask("/-/ledger?token=wrong").status == 403
    assert pages.ask("/-/ledger?token=").status == 403


def test_the_token_of_the_address_becomes_a_cookie_that_lets_in_and_leaves_the_address(pages):
    answer = pages.ask(f"/-/ledger?days=3&token={TOKEN}")
    assert (answer.status, answer.headers["location"]) == (303, "/-/ledger?days=3")
    assert "HttpOnly; SameSite=Strict" in answer.headers["set-cookie"]
    cookie = answer.headers["set-cookie"].split(";")[0]
    assert pages.ask("/-/ledger?days=3", Cookie=cookie).status == 200


def test_the_login_leads_to_no_other_host(pages):
    for path in ("//evil.example/x", "/\\evil.example", "///evil.example"):
        where = pages.ask(f"{path}?token={TOKEN}").headers["location"]
        assert re.match(r"/[^/\\]", where), where


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_kept(pages):
    answer = pages.read("/-/ledger")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    for path in PATHS[:4]:
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"([^\"]+)", pages.read(path).text)
        own = f"http://{pages.address}/"
        assert [source for source in loaded if not source.removeprefix(own.rstrip("/")).startswith("/")] == []


def rows_of(page: str, title: str) -> list[list[str]]:
    """The numbers below a chart, its head first."""
    table = page.split(f"<summary>{title}, in numbers</summary>")[1].split("</table>")[0]
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in table.split("<tr>")[1:]]


def test_the_charts_have_the_figures_of_the_rows(pages):
    page = pages.read("/-/ledger?days=2&label=user").text
    head, *hours = rows_of(page, "Tool calls by hour and tool")
    assert head == ["", "read", "bash", "&lt;script&gt;document.title=&#39;owned&#39;&lt;/script&gt;", "webfetch"]
    assert [row[1:] for row in hours if any(cell not in {"0", ""} for cell in row[1:])] == [
        ["0", "0", "1", "0"],
        ["6", "3", "0", "0"],
        ["0", "0", "0", "1"],
    ]
    head, *hours = rows_of(page, "Errors by hour and tool")
    assert [sum(int(row[at]) for row in hours) for at in range(1, 5)] == [0, 1, 0, 0]
    assert rows_of(page, "Cost in US dollars by user and model") == [
        ["", "large", "small"],
        ["ada", "1.5", "0.25"],
        ["bob", "", "0.5"],
    ]
    durations = {
        row[0]: [float(cell) for cell in row[1:]] for row in rows_of(page, "Duration by tool, in milliseconds")[1:]
    }
    assert durations["read"] == [4, 4, 4]
    assert durations["bash"] == pytest.approx([100, 900, 900], rel=1 / 32)
    by_day = pages.read("/-/ledger?days=30").text
    _, *days = rows_of(by_day, "Tool calls by day and tool")
    assert sum(int(row[1]) for row in days) == 6


def test_a_session_is_shown_as_bars_in_order(pages):
    page = pages.read("/-/ledger/session?id=s-ada").text
    titles = re.findall(r"<title>((?:tool|model)[^<]*)</title>", page)
    assert len(titles) == 12
    assert titles[-1].startswith("tool call webfetch succeeded: 700 ms from 3600000 ms") or "small" in titles[-1]
    assert pages.read("/-/ledger/session?id=nobody").status == 404


@pytest.mark.parametrize("name", QUERIES)
def test_each_canned_query_answers(pages, name):
    page = pages.read(f"/ledger/{name}?since=2020-01-01&key=user&session_id=s-ada")
    assert page.status == 200
    answer = pages.read(f"/ledger/{name}.json?_shape=array&since=2020-01-01&key=user&session_id=s-ada")
    rows = json.loads(answer.text)
    expected = {"session_timeline": 12, "errors": 1, "slowest_calls": 11, "cost_by_label": 3,
                "usage_by_engine_and_tool": 4, "producers": 0, "pruned": 0}  # fmt: skip
    assert len(rows) == expected[name]


def test_nothing_can_be_written(pages):
    """By method, by SQL, by a function of SQLite, by attaching another file: nothing changes, and no file appears."""
    before = pages.database.read_bytes()
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        for path in ("/ledger", "/ledger/sessions", "/ledger/-/insert", "/-/ledger", "/-/permissions"):
            answer = pages.ask(path, method, "sql=delete from sessions", Authorization=f"Bearer {TOKEN}")
            assert answer.status == 405
    folder = pages.database.parent
    for sql in (
        "delete from sessions",
        "drop table sessions",
        "insert into sessions select * from sessions",
        "with x as (select 1) delete from sessions",
        "pragma user_version = 7",
        "select 1; delete from sessions",
        "explain delete from sessions",
        f"attach '{folder / 'other.db'}' as other",
        f"vacuum into '{folder / 'copy.db'}'",
        f"select writefile('{folder / 'file'}', 'x')",
        "select load_extension('x')",
        "select * from pragma_journal_mode('delete')",
    ):
        answer = pages.ask(f"/ledger.json?sql={sql.replace(' ', '+')}", Authorization=f"Bearer {TOKEN}")
        if not sql.startswith("explain"):
            assert answer.status == 400, sql
    assert pages.database.read_bytes() == before
    assert not [path for path in folder.iterdir() if path.name in {"other.db", "copy.db", "file"}]
    assert pages.ask("/ledger.db", Authorization=f"Bearer {TOKEN}").status in {403, 404}


@pytest.mark.parametrize("value", ["zeroblob(9000000)", "hex(zeroblob(9000000))", "printf('%.*c', 9000000, 'x')"])
def test_no_query_makes_a_long_value(pages, value):
    """300 MB of it were 9 GB in the process, beside the ledger."""
    answer = pages.ask(f"/ledger.json?sql=select+{quote(value)}", Authorization=f"Bearer {TOKEN}")
    assert len(answer.text) < 10_000


def test_what_a_model_wrote_is_shown_as_text(pages):
    for path in (
        "/-/ledger",
        "/-/ledger/session?id=s-bob",
        "/ledger/tool_call_log",
        "/ledger/session_timeline?session_id=s-bob",
    ):
        answer = pages.read(path)
        assert answer.status == 200
        assert "owned" in answer.text
        assert HOSTILE not in answer.text


@pytest.mark.parametrize("query", ["days=0", "days=-1", "days=x", "days=99999999999", "days=1e3", "days=²"])
def test_a_range_that_makes_no_sense_is_refused(pages, query):
    assert pages.read(f"/-/ledger?{query.replace('²', '%C2%B2')}").status == 400


def test_the_pages_follow_a_running_service_and_do_not_hold_it_up(tmp_path: Path):
    with serving(tmp_path) as pages, serve(pages.database) as service:
        with grpc.insecure_channel(service.address) as channel:
            stub = LedgerStub(channel)
            assert stub.RecordBatch(record_request(tool_calls=[audit_row(tool_name="new")])).stored == 1
        found = json.loads(pages.read("/ledger.json?_shape=array&sql=select+count(*)+as+n+from+tool_call_log").text)
        assert found == [{"n": 12}]
        assert "new" in rows_of(pages.read("/-/ledger?days=2").text, "Tool calls by hour and tool")[0]
        assert service.terminate() == 0
        assert pages.read("/-/ledger").status == 200
    assert {finding.state for finding in check(pages.database, lambda *_: None)} == {"ok"}


def test_without_a_file_a_new_token_is_made_and_printed_once(tmp_path: Path):
    database = make_database(tmp_path)
    env = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'protos'}", "AUDIT_DB": str(database)}
    command = [sys.executable, "-m", "audit_svc", "ui", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        match = re.fullmatch(r"http://(127\.0\.0\.1:\d+)(/-/ledger\?token=[\w-]{32})", url)
        assert match is not None
        answer = Pages(match[1], database).ask(match[2])
        assert answer.status == 303
        process.terminate()
        assert match[2][-32:] not in process.communicate(timeout=20)[1]


def test_failing_queries_are_not_printed_and_a_full_pipe_holds_up_no_page(tmp_path: Path):
    """Nobody reads what the command prints, as when it was started by a program."""
    (tmp_path / "login").write_text(TOKEN)
    env = environment({"AUDIT_DB": str(make_database(tmp_path))})
    command = [
        sys.executable,
        "-m",
        "audit_svc",
        "ui",
        "--listen",
        "127.0.0.1:0",
        "--login-file",
        str(tmp_path / "login"),
    ]
    with subprocess.Popen(command, env=env, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        address = running.stdout.readline().decode().split("/")[2]
        pages = Pages(address, tmp_path / "audit.db")
        try:
            for number in range(60):
                query = f"SELECT patient_{number} FROM nowhere -- {'searched for ' * 300}"
                for form in ("", ".json"):
                    answer = pages.read(f"/ledger{form}?sql={quote(query)}")
                    assert answer.status == 400
                    assert "nowhere" in answer.text
            assert pages.read("/-/ledger/session?id=none").status == 404
        finally:
            running.terminate()
            told = b"".join(running.communicate(timeout=60))
    assert b"patient" not in told
    assert b"Traceback" not in told


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:8001"])
def test_beyond_loopback_it_listens_only_when_told(pages, listen):
    done = run_command("audit_svc", {"AUDIT_DB": str(pages.database)}, "ui", "--listen", listen)
    assert done.returncode == 2
    assert "plain text" in done.stderr


def test_what_is_no_ledger_is_refused_in_a_sentence(tmp_path: Path):
    garbage = tmp_path / "audit.db"
    garbage.write_bytes(b"garbage" * 1000)
    for path, said in ((tmp_path / "none.db", "there is no file"), (garbage, "is no SQLite database")):
        done = run_command("audit_svc", {"AUDIT_DB": str(path)}, "ui", "--listen", "127.0.0.1:0")
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert said in done.stderr
