"""The pages in a real Chromium that reaches nothing but them, wide and narrow, light and dark."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from demo.processes import start_service
from tests.audit_svc.samples import audit_row, record_request
from tests.ui.conftest import HOSTILE, WINDOWS, Browser, Pages, findings, record, showing

pytestmark = pytest.mark.ui

ALL = ["/", "/sessions", "/sessions?tool=bash", "/session?id=s-ada", "/session?id=s-bob", "/session?id=none",
       "/search", "/search?q=make+t", "/search?q=%3Cscript%3E", "/search?q=user%3Dada", "/search?q=xy",
       "/search?q=t-1", "/usage?since=24h&compare=before", "/approvals", "/health", "/about"]  # fmt: skip


@pytest.fixture(params=WINDOWS, ids=lambda window: f"{window[0]}-{window[1]}")
def browser(request: Any, chromium: Any, pages: Pages) -> Iterator[Browser]:
    """Each kind of window; at its end nothing was asked of others, and no code was refused or failed."""
    window = Browser(chromium, pages, *request.param)
    yield window
    window.context.close()
    assert window.elsewhere == []
    assert [text for text in window.said if "404" not in text] == []


def test_each_page_is_accessible_fits_the_window_and_runs_no_words_of_others(browser, axe):
    for path in ALL:
        page = browser.open(path)
        for details in page.query_selector_all("details"):
            details.evaluate("node => node.open = true")
        assert findings(page, axe) == [], path
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= page.viewport_size["width"], path
        assert page.title() != "owned"
        assert "Content is not kept" in page.inner_text("footer")


def test_from_the_list_to_a_session_by_the_keyboard(browser):
    page = browser.open("/sessions")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    link = page.get_by_role("link", name="s-ada", exact=True)
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/session?id=s-ada*")
    first = page.locator("details.node > summary").nth(1)
    first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details.node").nth(1).get_attribute("open") is not None


def test_by_forms_and_links_from_the_start_to_the_proof_of_a_call(browser):
    page = browser.open("/")
    page.get_by_role("link", name="Sessions", exact=True).first.click()
    page.get_by_label("Tool of some call").fill("bash")
    page.locator("select[name=outcome]").select_option("denied")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**/sessions?*tool=bash*")
    assert "outcome=denied" in page.url
    assert page.locator("tbody tr").count() == 1
    page.get_by_role("link", name="s-ada", exact=True).click()
    page.wait_for_url("**/session?id=s-ada*")
    denied = page.locator("details.denied").first
    denied.locator("summary").click()
    assert "not on a Friday" in denied.inner_text()
    while browser.pages.read("/proof?kind=call&id=c-rm&by=").status == 503:  # not sealed yet
        time.sleep(0.2)
    with page.expect_download() as started:
        denied.get_by_role("link", name="Its proof, as a file").click()
    assert Path(started.value.path()).read_text().startswith("c2sp.org/tlog-proof")
    page.get_by_role("link", name="repository=shop").first.click()
    page.wait_for_url("**/sessions?label=*")
    assert page.locator("tbody tr").count() == 1


def test_by_the_form_usage_is_grouped_and_two_times_are_beside_each_other(browser):
    page = browser.open("/usage")
    page.locator("select[name=by]").select_option("tool")
    page.get_by_label("From", exact=True).fill("2020-01-01")
    page.get_by_label("Before", exact=True).fill("2020-02-01")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**since=2020-01-01*")
    assert "Nothing in this time" in page.inner_text("main")
    page.get_by_role("link", name="24h", exact=True).click()
    page.wait_for_url("**since=24h*")
    assert page.get_by_role("rowheader", name="webfetch").count() == 1
    page.locator("select[name=compare]").select_option("before")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**compare=before*")
    assert "none then" in page.inner_text("main")


def test_what_a_model_wrote_is_shown_as_text(browser):
    page = browser.open("/session?id=s-bob")
    assert HOSTILE in page.inner_text("main")
    assert page.evaluate("document.querySelectorAll('main script').length") == 0


def test_the_list_of_calls_follows_the_record(chromium, tmp_path):
    """By itself, also over a time in which the ledger is away."""
    env = {"AUDIT_DB": str(tmp_path / "audit.db"), "AUDIT_LISTEN": "127.0.0.1:0"}
    with ExitStack() as stack:
        service = stack.enter_context(start_service("audit_svc", env, "serve"))
        pages = stack.enter_context(showing(tmp_path, service.address))
        window = Browser(chromium, pages)
        page = window.open("/")
        record(service.address, record_request(tool_calls=[audit_row(tool_name="first-call")]))
        page.get_by_text("first-call").wait_for()
        assert service.terminate() == 0
        page.get_by_role("alert").wait_for()
        service = stack.enter_context(start_service("audit_svc", {**env, "AUDIT_LISTEN": service.address}, "serve"))
        record(service.address, record_request(tool_calls=[audit_row(tool_name="second-call")]))
        page.get_by_text("second-call").wait_for()
        assert page.get_by_role("alert").count() == 0
        window.context.close()
