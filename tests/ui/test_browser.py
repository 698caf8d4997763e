"""The pages in a real Chromium that reaches nothing but them, wide and narrow, light and dark."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from demo.processes import start_service
from tests.audit_svc.samples import audit_row, record_request
from tests.ui.conftest import HOSTILE, Browser, Pages, findings, record, showing

pytestmark = pytest.mark.ui

ALL = ["/", "/sessions", "/sessions?tool=bash", "/session?id=s-ada", "/session?id=s-bob", "/session?id=none",
       "/usage?since=24h&compare=before", "/approvals", "/health", "/about"]  # fmt: skip
WINDOWS = [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")]


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
