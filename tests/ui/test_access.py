"""Who is let in to the pages: by address, token, cookie and form; and that they load nothing from elsewhere."""

import re

import pytest

from demo.processes import run_command
from tests.ui.conftest import TOKEN

pytestmark = pytest.mark.ui

PATHS = [
    "/",
    "/live",
    "/sessions",
    "/search?q=make",
    "/session?id=s-ada",
    "/about",
    "/usage",
    "/approvals",
    "/health",
    "/static/pages.css",
    "/static/../app.py",
    "/nothing",
]


@pytest.mark.parametrize("shown", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN},
                                   {"Cookie": "onrecord_ui=wrong"}, {"Cookie": "onrecord_ui"}], ids=str)  # fmt: skip
def test_without_the_token_there_is_nothing(pages, shown):
    for path in PATHS:
        answer = pages.ask(path, **shown)
        assert (answer.status, "audit-svc ui has printed" in answer.text) == (403, True)
    assert pages.ask("/?token=wrong").status == 403
    assert pages.ask("/?token=").status == 403
    assert pages.ask("/", "POST", "token=" + TOKEN).status == 403


def test_the_token_of_the_address_becomes_a_cookie_that_lets_in_and_leaves_the_address(pages):
    answer = pages.ask(f"/sessions?tool=bash&token={TOKEN}")
    assert (answer.status, answer.headers["location"]) == (303, "/sessions?tool=bash")
    assert "HttpOnly; SameSite=Strict" in answer.headers["set-cookie"]
    cookie = answer.headers["set-cookie"].split(";")[0]
    assert pages.ask("/sessions?tool=bash", Cookie=cookie).status == 200


def test_the_login_leads_to_no_other_host(pages):
    for path in ("//evil.example/x", "/\\evil.example", "///evil.example"):
        where = pages.ask(f"{path}?token={TOKEN}").headers["location"]
        assert re.match(r"/[^/\\]", where), where


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8001", "127.0.0.1", "localhost", "127.0.0.1:1", ""])
def test_under_another_name_there_is_nothing_even_with_the_token(pages, host):
    for path in ("/", f"/?token={TOKEN}", "/static/pages.css"):
        answer = pages.ask(path, Host=host, Authorization=f"Bearer {TOKEN}")
        assert answer.status in {400, 421}
        assert "set-cookie" not in answer.headers


def test_this_machines_other_names_are_good_names(pages):
    port = pages.address.rpartition(":")[2]
    for name in ("localhost", "LOCALHOST", "[::1]"):
        assert pages.ask("/about", Host=f"{name}:{port}", Authorization=f"Bearer {TOKEN}").status == 200


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_kept(pages):
    for path in PATHS[:9]:
        answer = pages.read(path)
        assert answer.status == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"([^\"]+)", answer.text)
        assert [source for source in loaded if not source.startswith("/static/")] == []
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script>|javascript:", answer.text)
        assert TOKEN not in answer.text


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_no_other_method_is_answered(pages, method):
    for path in PATHS:
        assert pages.ask(path, method, Authorization=f"Bearer {TOKEN}").status == 405


def test_a_form_must_be_one_of_ours(pages):
    """Whatever is posted where: without the field, with another's, from another site, or too long."""
    cookie = {"Cookie": f"onrecord_ui={TOKEN}"}
    for body in ("", "csrf=", "csrf=" + "0" * 64, f"csrf={TOKEN}", "csrf=%C3%A9"):
        assert pages.ask("/about", "POST", body, **cookie).status == 403
    assert pages.ask("/about", "POST", "x=" + "y" * 40_000, **cookie).status == 413
    assert pages.ask("/about", "POST", "&".join(f"x{i}=" for i in range(100)), **cookie).status == 413


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:8001"])
def test_beyond_loopback_it_listens_only_when_told_and_under_which_name(listen):
    done = run_command("audit_svc", {}, "ui", "--listen", listen)
    assert done.returncode == 2
    assert "plain text" in done.stderr
    done = run_command("audit_svc", {}, "ui", "--listen", listen, "--allow-network")
    assert done.returncode == 2
    assert "--host" in done.stderr
