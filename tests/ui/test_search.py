"""The field that takes an id, a text in arguments, a title or a label, and what it leads to."""

import html
import re
import time
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.parse import quote
from uuid import uuid4

import pytest
from onrecord.audit.v1 import audit_pb2

from audit_svc.ui.texts import EXCERPT, marked
from demo.processes import start_service
from recording.ids import uuid7
from service_kit.terminal.ids import SHORT
from tests.audit_svc.samples import audit_row, cost_row, record_request, session_row
from tests.ui.conftest import HOSTILE, Browser, Pages, record, showing
from tests.ui.test_pages import words

pytestmark = pytest.mark.ui


def found(pages: Pages, text: str, *, status: int = 200) -> str:
    """The page of a search."""
    answer = pages.read(f"/search?q={quote(text, safe='')}")
    assert answer.status == status, (text, answer.text)
    return answer.text


def leads_to(pages: Pages, text: str) -> str:
    """Where a search leads."""
    answer = pages.read(f"/search?q={quote(text, safe='')}")
    assert answer.status == 303, (text, answer.text)
    return answer.headers["location"]


def sessions_in(page: str) -> list[str]:
    return re.findall(r'href="/session\?id=([^&"]+)', page.partition("<main")[2])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Pages of a ledger whose ids are as services make them, with more newer rows than a part is looked for among."""
    folder = tmp_path_factory.mktemp("many")
    env = {"AUDIT_DB": str(folder / "audit.db"), "AUDIT_LISTEN": "127.0.0.1:0"}
    now_ms = time.time_ns() // 1_000_000  # as the ids say
    session, turn, long_session = (str(uuid7()) for _ in range(3))
    own = {"session_id": session, "turn_id": turn, "created_at_ms": now_ms}
    first = audit_row(**own, id=str(uuid7()), args_summary="the first of all")
    request = cost_row(**own, id=str(uuid7()))
    act = audit_pb2.ControlRow(id=str(uuid7()), kind=audit_pb2.CONTROL_KIND_STOP, principal="ops",
                               scope="engine=ollama", reason="a drill", at_ms=now_ms, stop_id="stop-1")  # fmt: skip
    rest = [
        audit_row(session_id=long_session, turn_id="t-long", created_at_ms=now_ms + number, args_summary="one of many")
        for number in range(1, 1102)
    ]
    titled = session_row(id="s-titled", labels={"title": "the drill", "team": "red"})
    sessions = [titled, session_row(id=session, created_at_ms=now_ms), session_row(id=long_session)]
    with start_service("audit_svc", env, "serve") as service, showing(folder, service.address) as pages:
        record(
            service.address,
            record_request(tool_calls=[first], model_requests=[request], controls=[act], sessions=sessions),
            record_request(tool_calls=rest),
        )
        yield SimpleNamespace(
            pages=pages, session=session, turn=turn, call=first.id, request=request.id, act=act.id, last=rest[-1].id,
            long_session=long_session,
        )  # fmt: skip


def test_a_whole_id_leads_to_its_row_however_old_it_is(many):
    pages = many.pages
    session = f"/session?id={many.session}&by="
    assert leads_to(pages, many.session) == session
    assert leads_to(pages, f" {many.session} ") == session
    assert leads_to(pages, many.turn) == f"{session}#turn-1"
    page = pages.read(session).text
    for id_, kind in ((many.call, "call"), (many.request, "request")):
        address, _, anchor = leads_to(pages, id_).partition("#")
        assert (address, anchor.partition("-")[0]) == (session, kind)
        (row,) = re.findall(rf'<details [^>]*id="{anchor}">.*?</details>', page, re.DOTALL)
        assert id_ in row


def test_a_turns_whole_id_that_has_no_time_is_found_among_the_newest(tmp_path):
    """As agents of others number theirs."""
    env = {"AUDIT_DB": str(tmp_path / "audit.db"), "AUDIT_LISTEN": "127.0.0.1:0"}
    with start_service("audit_svc", env, "serve") as service, showing(tmp_path, service.address) as pages:
        turn = str(uuid4())
        record(service.address, record_request(tool_calls=[audit_row(turn_id=turn)], sessions=[session_row()]))
        assert leads_to(pages, turn).endswith("#turn-1")
        assert "No call has this in its arguments" in words(found(pages, str(uuid7())))


def test_an_act_of_control_is_told_with_its_proof(many):
    for text in (many.act, many.act[-SHORT:]):
        page = found(many.pages, text)
        assert "stop engine=ollama by ops: “a drill”" in words(page)
        assert f"/proof?kind=control&amp;id={many.act}" in page


def test_a_part_of_an_id_leads_to_the_one_that_it_fits_and_lists_several(many):
    assert leads_to(many.pages, many.session[-12:]) == f"/session?id={many.session}&by="
    assert leads_to(many.pages, many.session[:23]) == f"/session?id={many.session}&by="
    page = found(many.pages, many.session[:SHORT])  # the minute in which all of them were made
    assert re.search(r"[\d,]+ rows have this id, or one that begins or ends so; the first 50 are here", words(page))
    assert many.session in sessions_in(page)
    # Too short for a part, or older than those that parts are looked for among:
    assert "No call has this in its arguments" in words(found(many.pages, many.session[: SHORT - 1]))
    assert "No call has this in its arguments" in words(found(many.pages, many.call[-12:]))


def test_a_row_further_on_than_a_sessions_page_is_told_with_a_link(many):
    page = found(many.pages, many.last)
    assert "1 row has this id. It stands further on in its session" in words(page)
    assert "one of many" in words(page)
    assert set(sessions_in(page)) == {many.long_session}


def test_an_id_that_several_recorded_or_several_kinds_have_is_listed(tmp_path):
    env = {"AUDIT_DB": str(tmp_path / "audit.db"), "AUDIT_LISTEN": "127.0.0.1:0"}
    with start_service("audit_svc", env, "serve") as service, showing(tmp_path, service.address) as pages:
        rows = record_request(tool_calls=[audit_row(id="same")], model_requests=[cost_row(id="same")])
        record(service.address, rows)
        page = words(found(pages, "same"))
        assert "2 rows have this id." in page
        assert "tool call same" in page
        assert "model request same" in page


def test_a_text_is_looked_for_in_the_arguments_of_calls_the_newest_first(pages):
    page = found(pages, "MAKE t")
    assert sessions_in(page) == ["s-ada"]
    assert "{&#34;command&#34;: &#34;<mark>make t</mark>est&#34;}" in page
    assert "exit 2" in words(page)
    (row,) = re.findall(r'href="(/search\?q=c-bash)"', page)
    assert re.fullmatch(r"/session\?id=s-ada&by=#call-\d+", pages.read(row).headers["location"])
    assert "No call has this in its arguments" in words(found(pages, "nowhere"))
    assert 'value="nowhere"' in found(pages, "nowhere")


def test_pages_of_calls_have_each_once_and_go_on_with_the_text(many):
    shown, address = 0, "/search?q=One+of"
    times: list[str] = []
    while address:
        answer = many.pages.read(address)
        assert answer.status == 200
        shown += answer.text.count("<mark>one of</mark>")
        times += re.findall(r'<tr><td><time datetime="([^"]+)"', answer.text)
        following = re.search(r'<a href="([^"]+)" rel="next">', answer.text)
        address = html.unescape(following[1]) if following else ""
    assert shown == len(times) == 1101
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize(
    ("text", "sessions"), [("user=ada", ["s-ada"]), ("repository = shop", ["s-ada"]), ("user=bob", []), ("=ada", [])]
)
def test_a_label_finds_its_sessions(pages, text, sessions):
    assert sessions_in(found(pages, text)) == sessions


def test_a_whole_title_finds_its_sessions(many):
    page = found(many.pages, "the drill")
    assert sessions_in(page) == ["s-titled"]
    assert "Sessions with this title" in words(page)
    assert sessions_in(found(many.pages, "the dril")) == []


def test_too_short_a_text_is_not_looked_for_and_the_page_says_so(pages):
    for text in ("x", "ma"):
        assert "Arguments are searched for 3 characters or more" in words(found(pages, text))


def test_without_anything_it_says_what_is_searched_and_what_is_not(pages):
    for path in ("/search", "/search?q=", "/search?q=+"):
        page = pages.read(path)
        assert page.status == 200
        assert "What is searched" in words(page.text)
        assert "content is not kept" in words(page.text)
        assert "No call has" not in words(page.text)


@pytest.mark.parametrize(
    "query", ["q=make&page=x", "page=x", "q=ma&page=x", "q=" + "x" * 4097, "q=ma%00ke", "text=make"]
)
def test_what_cannot_be_searched_for_is_refused_in_a_sentence(pages, query):
    answer = pages.read(f"/search?{query}")
    assert answer.status == 400
    assert re.search("<h1>(This cannot be asked|The ledger refuses this)</h1>", answer.text)


def test_whatever_is_typed_is_text(pages):
    breaking = ('"><script>document.title="owned"</script>', "'\"", "%", "_%_")
    unseen = ("\x1b\u202e{{7*7}}", "\ud800", "a\nb", "x" * 4096)
    for text in (HOSTILE, *breaking, *unseen):
        answer = pages.read(f"/search?q={quote(text, safe='', errors='surrogatepass')}")
        assert answer.status == 200, (text, words(answer.text))
        assert "<script>doc" not in answer.text
        assert '"><script' not in answer.text
        assert "\u202e" not in answer.text.partition("<main")[2]
    page = found(pages, HOSTILE[:8])
    assert "<mark>&lt;script&gt;</mark>document" in page


def test_a_long_text_is_shown_around_what_was_found():
    assert str(marked("a<b>A", "A")) == "<mark>a</mark>&lt;b&gt;<mark>A</mark>"
    assert str(marked("<&", "")) == "&lt;&amp;"
    assert str(marked("\u202ex\u202e", "x")) == "\\u202e<mark>x</mark>\\u202e"
    assert str(marked("ÄÖä", "ä")) == "ÄÖ<mark>ä</mark>"
    for at in (0, 100, 2000, 3999):
        text = "." * at + "x" + "." * (3999 - at)
        shown = str(marked(text, "X"))
        assert shown.count("<mark>x</mark>") == 1, at
        assert len(shown) <= EXCERPT + 20
        assert (shown.startswith("…"), shown.endswith("…")) == (at > EXCERPT, at < 3500)
    assert str(marked("y" * 1000, "y" * 900)) == f"<mark>{'y' * 900}</mark>…"


def test_from_any_page_by_the_keyboard_to_a_call(chromium, pages):
    for width in (390, 1280):
        window = Browser(chromium, pages, width)
        page = window.open("/usage")
        field = page.get_by_role("searchbox")
        field.fill("make t")
        field.press("Enter")
        page.wait_for_url("**/search?q=make+t")
        assert page.locator("mark").inner_text() == "make t"
        page.get_by_role("link", name="bash", exact=True).click()
        page.wait_for_url("**/session?id=s-ada*#call-*")
        window.context.close()
        assert (window.said, window.elsewhere) == ([], [])
