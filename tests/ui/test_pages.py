"""The pages over HTTP: what they show is what the ledger has, and where it has nothing they say so."""

import html
import re
import subprocess
import sys
import time

import grpc
import pytest
from onrecord.audit.v1 import administration_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.ui.pages.usage import SHOWN
from demo.processes import REPOSITORY, environment, start_service
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, record_request, session_row
from tests.audit_svc.stubs import LedgerStub
from tests.ui.conftest import HOSTILE, MINUTE_MS, TOKEN, Pages, record, showing

pytestmark = pytest.mark.ui


def words(page: str) -> str:
    """What a reader sees of a page, blanks alike."""
    main = page.partition("<main")[2].partition("</main>")[0]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", main)).split())


def figures(page: str) -> dict[str, str]:
    """The tiles of a page, by their names."""
    tiles = re.findall(r"<dt>(.*?)</dt><dd class=\"figure[^>]*>(.*?)</dd>", page)
    return {name: " ".join(re.sub(r"<[^>]*>", " ", value).split()) for name, value in tiles}


def test_the_start_tells_what_today_took(pages):
    page = pages.read("/").text
    told = figures(page)
    assert told["Denied"] in {"1", "0"}  # yesterday, for half an hour after midnight
    if told["Denied"] == "1":
        assert told["Tool calls"] == "7"
        assert told["Failed"] == "2"
        assert told["Spent"] == "$2.25 + 1 unpriced"
        assert told["Model requests"] == "4"
    assert "7 calls, 3 failed or denied" in words(page) or "calls, " in words(page)
    assert "s-ada" in words(page)


def test_what_speaks_against_the_record_and_what_nobody_tells_is_said(pages):
    """Without a gateway nobody says whether its rows reach a disk."""
    page = words(pages.read("/").text)
    assert "2 numbers never came, and 0 rows were refused, of 1 producers" in page
    assert "no gateway is named" in page


def test_a_lost_row_is_told_on_the_first_page(tmp_path):
    env = {"AUDIT_DB": str(tmp_path / "audit.db"), "AUDIT_LISTEN": "127.0.0.1:0"}
    with start_service("audit_svc", env, "serve") as service, showing(tmp_path, service.address) as pages:
        assert "Is everything on the record? not known" in words(pages.read("/").text)
        gap = audit_row(tool_name="onrecord.gap", error="3 rows were lost")
        record(service.address, record_request(tool_calls=[gap]))
        page = words(pages.read("/").text)
        assert "Is everything on the record? no" in page
        assert "3 rows were lost" in page


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", {"s-ada", "s-bob", "s-other"}),
        ("principal=ada", {"s-ada"}),
        ("agent=other", {"s-other"}),
        ("tool=webfetch", {"s-ada"}),
        ("outcome=denied", {"s-ada"}),
        ("outcome=failed&principal=ada", set()),
        ("tool=bash&status=running", {"s-ada"}),
        ("label=repository%3Dshop", {"s-ada"}),
        ("label=repository%3Dshop&tool=bash", {"s-ada"}),
        ("status=failed", {"s-bob"}),
        ("since=1h", {"s-ada", "s-bob", "s-other"}),
        ("until=2020-01-01", set()),
        ("engine=claude", {"s-other"}),
    ],
)
def test_the_list_has_the_sessions_that_meet_the_filter(pages, query, found):
    page = pages.read(f"/sessions?{query}").text
    assert set(re.findall(r"href=\"/session\?id=(s-\w+)", page)) == found


@pytest.mark.parametrize(
    "query",
    ["since=x", "outcome=good", "status=dead", "label=x", "agent=x&outcome=worse", "page=x", "until=-1"],
)
def test_a_filter_that_makes_no_sense_is_refused_in_a_sentence(pages, query):
    answer = pages.read(f"/sessions?{query}")
    assert answer.status == 400
    assert re.search("<h1>(This cannot be asked|The ledger refuses this)</h1>", answer.text)


def test_pages_of_a_list_have_each_session_once(tmp_path):
    env = {"AUDIT_DB": str(tmp_path / "audit.db"), "AUDIT_LISTEN": "127.0.0.1:0"}
    with start_service("audit_svc", env, "serve") as service, showing(tmp_path, service.address) as pages:
        many = [f"s-{number}" for number in range(130)]
        rows = [audit_row(session_id=name) for name in many]
        record(service.address, record_request(tool_calls=rows, sessions=[session_row(id=name) for name in many]))
        for query in ("", "since=24h", "tool=bash", "tool=bash&since=24h"):
            shown, address = [], f"/sessions?{query}"
            while address:
                page = pages.read(address).text
                shown += re.findall(r"href=\"/session\?id=(s-\w+)", page)
                following = re.search(r'<a href="([^"]+)" rel="next">', page)
                address = html.unescape(following[1]) if following else ""
            assert sorted(shown) == sorted(many), query


def test_a_session_is_a_tree_with_its_sums_decisions_and_what_was_cut(pages):
    page = pages.read("/session?id=s-ada").text
    told = words(page)
    assert figures(page) == {"Turns": "2", "Tool calls": "5", "Model requests": "3", "Tokens in, out": "300, 60",
                             "Cost": "$1.75 + 1 unpriced"}  # fmt: skip
    first, second = page.split('<section class="turn"')[1:]
    assert "200 tokens in, 40 out · $1.75" in words(f"<main>{first}</main>")
    assert re.findall(r'class="(of-\w+)"', first) == ["of-request", "of-call", "of-call", "of-request", "of-call"]
    assert "denied by person" in told
    assert "decided by bob waited 4.0 s" in told
    assert "not on a Friday" in told
    assert "exit 2" in told
    assert "HTTP 404" in told
    assert '{"path": "README.md"}' in told
    assert 'rect class="interrupted"' in second
    assert 'rect class="denied"' in first
    assert "stop engine=ollama" in told
    assert "Link to this call" in told
    assert "The last turn has no end on record" in told
    assert "The last turn is not counted yet." in told
    assert "interrupted · -" in told
    assert "denied · -" in told
    assert "no end on record" not in words(pages.read("/session?id=s-other").text)


@pytest.mark.parametrize("address", ["/", "/sessions", "/search?q=user%3Dada"])
def test_a_list_says_whose_last_turn_is_not_counted(pages, address):
    assert "the last turn is not counted yet" in words(pages.read(address).text)
    assert "not counted" not in words(pages.read("/sessions?status=failed").text)


def test_a_session_without_a_row_of_its_own_is_shown(pages):
    page = pages.read("/session?id=s-other").text
    assert figures(page)["Turns"] == "–"
    assert "of another agent" in words(page)
    assert "counts as claude event.sequence, 2 of 8 never came" in words(page)


def test_what_others_wrote_is_text(pages):
    by_tool = f"/sessions?tool={HOSTILE.replace('/', '%2F')}"
    searches = ("/search?q=Script%3Edoc", "/search?q=k-1")
    for path in ("/", "/live", "/sessions", "/session?id=s-bob", *searches, by_tool):
        answer = pages.read(path)
        assert answer.status == 200
        assert "owned" in answer.text
        assert HOSTILE not in answer.text


def test_what_cannot_be_seen_is_shown_as_an_escape(tmp_path):
    env = {"AUDIT_DB": str(tmp_path / "audit.db"), "AUDIT_LISTEN": "127.0.0.1:0"}
    with start_service("audit_svc", env, "serve") as service, showing(tmp_path, service.address) as pages:
        hidden = audit_row(tool_name="ba\u202esh", session_id="s\u200b1", source=common_pb2.SOURCE_HOOK)
        record(service.address, record_request(tool_calls=[hidden]))
        for path in ("/", "/sessions", "/session?id=s%E2%80%8B1"):
            page = pages.read(path)
            assert page.status == 200
            assert "\u202e" not in page.text
            assert "\u200b" not in page.text


def test_no_word_of_a_question_is_in_the_log(ledger, tmp_path):
    with showing(tmp_path, ledger.address) as pages:
        for number in range(50):
            assert pages.read(f"/sessions?page=patient-{number}-{'x' * 3000}").status == 400
            assert pages.read(f"/session?id=patient-{number}").status == 404
            assert pages.read(f"/search?q=patient-{number}").status == 200
    assert "patient" not in (tmp_path / "log").read_text("utf-8")


def test_what_the_ledger_does_not_have_is_a_page_with_its_sentence(pages):
    answer = pages.read("/session?id=none")
    assert answer.status == 404
    assert "NOT_FOUND" in words(answer.text)
    assert pages.read("/nothing").status == 404


def test_a_ledger_that_is_away_is_told_as_passing_and_the_pages_go_on_when_it_is_back(tmp_path):
    env = {"AUDIT_DB": str(tmp_path / "audit.db"), "AUDIT_LISTEN": "127.0.0.1:0"}
    with start_service("audit_svc", env, "serve") as service, showing(tmp_path, service.address) as pages:
        assert pages.read("/sessions").status == 200
        address = service.address
        assert service.terminate() == 0
        for path in ("/", "/sessions", "/search?q=s-1", "/session?id=s-1"):
            answer = pages.read(path)
            assert answer.status == 503
            assert "This passes" in words(answer.text)
            assert f"nobody listens on {address}" in words(answer.text)
        part = pages.ask("/live", Authorization=f"Bearer {TOKEN}", Hx_Request="true")
        assert (part.status, "<html" in part.text) == (503, False)
        with start_service("audit_svc", {**env, "AUDIT_LISTEN": address}, "serve"):
            pages_back = [pages.read("/sessions").status for _ in range(20)]
            assert pages_back[-1] == 200


def test_what_the_pages_read_stands_in_the_log_of_queries(ledger, pages):
    pages.read("/session?id=s-bob")
    deadline = time.monotonic() + 120
    with grpc.insecure_channel(ledger.address) as channel:
        request = administration_pb2.ListQueriesRequest(method="GetSessionRecord")
        while not any("s-bob" in query.filters for query in LedgerStub(channel).ListQueries(request).queries):
            assert time.monotonic() < deadline  # it is written a moment after the answer
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("role", "statuses"), [("reader", {200}), ("admin", {200}), ("producer", {403}), ("", {403, 502})]
)
def test_they_may_read_what_their_credential_may(tmp_path, role, statuses):
    from service_kit.access.roles import Role, make_token

    token, table = make_token("pages", [Role(role or "reader")])
    (tmp_path / "tokens").write_text(table, "utf-8")
    (tmp_path / "tokens").chmod(0o600)
    (tmp_path / "token").write_text(token if role else "no-such-token", "utf-8")
    (tmp_path / "token").chmod(0o600)
    env = {
        "AUDIT_DB": str(tmp_path / "audit.db"),
        "AUDIT_LISTEN": "127.0.0.1:0",
        "AUDIT_TOKENS_FILE": str(tmp_path / "tokens"),
    }
    given = ("--token-file", str(tmp_path / "token"))
    with start_service("audit_svc", env, "serve") as service, showing(tmp_path, service.address, *given) as pages:
        for path in ("/", "/sessions", "/search?q=none", "/search?q=none-0123", "/session?id=none"):
            assert pages.read(path).status in statuses | ({404} if role in {"reader", "admin"} else set())
        assert token not in pages.read("/").text


def test_without_a_file_a_new_token_is_made_and_printed_once(ledger):
    command = [sys.executable, "-m", "audit_svc", "ui", "--listen", "127.0.0.1:0", "--target", ledger.address]
    with subprocess.Popen(
        command, env=environment({}), cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        match = re.fullmatch(r"http://(127\.0\.0\.1:\d+)(/\?token=[\w-]{32})", process.stdout.readline().strip())
        assert match is not None
        assert Pages(match[1]).ask(match[2]).status == 303
        process.terminate()
        assert process.communicate(timeout=60)[1] == ""


def test_usage_has_the_figures_of_the_rows_in_groups_and_beside_another_time(pages):
    page = pages.read("/usage?by=tool&since=24h").text
    rows = {cells[0]: cells[1:] for cells in table(page)}
    assert rows["bash"][:3] == ["4", "2", "1"]
    assert rows["webfetch"][:2] == ["1", "0"]
    assert rows["not set"][6:] == ["4", "480", "$2.25 + 1 unpriced"]
    by_person = {cells[0]: cells for cells in table(pages.read("/usage?by=principal&since=24h").text)}
    assert by_person["ada"][1] == "5"
    by_label = {cells[0]: cells for cells in table(pages.read("/usage?by=label&key=repository&since=24h").text)}
    assert by_label["shop"][9] == "$1.75 + 1 unpriced"
    beside = table(pages.read("/usage?by=tool&since=24h&compare=before").text)
    assert beside[1][1].endswith("none then") or "then" in beside[1][1]
    filtered = table(pages.read("/usage?by=tool&since=24h&principal=ada&tool=read").text)
    assert [cells[0] for cells in filtered] == ["read"]


def test_usage_shows_the_hundred_that_cost_most_wherever_their_names_are_in_the_alphabet(tmp_path):
    env = {"AUDIT_DB": str(tmp_path / "audit.db"), "AUDIT_LISTEN": "127.0.0.1:0"}
    with start_service("audit_svc", env, "serve") as service, showing(tmp_path, service.address) as pages:
        names = [f"person-{number:04}" for number in range(1100)]
        costs = [
            cost_row(principal=name, cost_micros=10_000 * (number + 1), created_at_ms=NOW_MS - MINUTE_MS)
            for number, name in enumerate(names)
        ]
        record(service.address, record_request(model_requests=costs))
        page = pages.read("/usage?by=principal&since=24h").text
        assert [cells[0] for cells in table(page)] == names[: -SHOWN - 1 : -1]
        assert "There are more: those that cost and did most are shown." in words(page)
        beside = pages.read("/usage?by=principal&since=1h&compare=from&against=2020-01-01").text
        assert [cells[0] for cells in table(beside)] == names[: -SHOWN - 1 : -1]
        assert "none then" in words(beside)


def table(page: str) -> list[list[str]]:
    """The cells of the rows of the last table of a page."""
    body = page.rpartition("<tbody>")[2].partition("</tbody>")[0]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in body.split("<tr>")[1:]]
    return [[" ".join(html.unescape(re.sub(r"<[^>]*>", " ", cell)).split()) for cell in row] for row in cells]


@pytest.mark.parametrize("query", ["by=x", "by=label", "since=2026-01-02&until=2026-01-01", "since=900d", "compare=x",
                                   "compare=from", "compare=from&against=x", "label=x"])  # fmt: skip
def test_a_time_or_a_group_that_makes_no_sense_is_refused(pages, query):
    assert pages.read(f"/usage?{query}").status == 400


@pytest.mark.parametrize("address", ["/?since=1h", "/sessions?person=ada", "/session?session=s-ada",
                                     "/usage?group=tool", "/search?text=x", "/health?x=1", "/proof?row=1"])  # fmt: skip
def test_a_field_that_a_page_does_not_have_is_refused_by_its_name(pages, address):
    answer = pages.read(address)
    assert answer.status == 400
    assert f"{re.split('[?=]', address)[1]} is not a field of this page" in words(answer.text)


def test_who_asks_for_a_label_as_in_a_command_is_told_the_fields(pages):
    answer = pages.read("/usage?by=label:repository")
    assert answer.status == 400
    assert "by=label&key=repository" in words(answer.text)


def test_the_proof_of_a_row_is_a_file(ledger, pages):
    """As soon as it is sealed; before that, and of what is not there, the page says so."""
    (act,) = set(re.findall(r'href="/proof\?(kind=control[^"]*)"', pages.read("/health").text))
    for query in ("kind=call&id=c-bash&by=", "kind=session&id=s-ada&by=", html.unescape(act)):
        while (answer := pages.read(f"/proof?{query}")).status == 503:
            assert "NOT_SEALED" in answer.text
            time.sleep(0.2)
        assert answer.status == 200
        assert answer.text.startswith("c2sp.org/tlog-proof")
        assert answer.headers["content-disposition"].startswith("attachment")
    assert pages.read("/proof?kind=call&id=none").status == 404
    assert pages.read("/proof?kind=x&id=c-bash").status == 400


def test_without_a_gateway_approvals_and_stops_say_how_to_name_one(pages):
    for path in ("/approvals", "/health"):
        assert "--gateway" in words(pages.read(path).text)
