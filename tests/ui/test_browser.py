"""The pages in a real Chromium that reaches nothing but them: they load, and what they draw is right."""

import re

import pytest

from tests.ui.conftest import HOSTILE

pytestmark = pytest.mark.ui


def chart(dom: str, title: str) -> str:
    """The drawing below that title."""
    (drawn,) = [part for part in dom.split('<div class="chart">')[1:] if f">{title}</text>" in part]
    return drawn.split("</svg>")[0]


def values(drawn: str) -> list[str]:
    """What the bars of a drawing stand for, but for nothing."""
    return [text for text in re.findall(r'<desc class="value">([^<]*)</desc>', drawn) if text not in {"0", ""}]


def test_the_charts_are_drawn_with_the_right_numbers(browse):
    dom = browse("/-/ledger?days=2&label=user")
    assert "<title>Ledger</title>" in dom
    assert sorted(values(chart(dom, "Tool calls by hour and tool"))) == ["1", "1", "3", "6"]
    assert values(chart(dom, "Errors by hour and tool")) == ["1"]
    assert sorted(values(chart(dom, "Cost in US dollars by user and model"))) == ["0.25", "0.5", "1.5"]
    assert len(values(chart(dom, "Duration by tool, in milliseconds"))) == 3 * 4
    assert "token=" not in dom


def test_a_session_is_drawn(browse):
    dom = browse("/-/ledger/session?id=s-ada")
    assert dom.count("<rect") == 12
    # The failed command has the colour of failures.
    assert len(re.findall(r'<rect[^>]*fill="#c0392b"', dom)) == 1


@pytest.mark.parametrize("path", ["/", "/ledger", "/ledger/tool_call_log", "/ledger/errors?since=2020-01-01"])
def test_tables_and_queries_load(browse, path):
    dom = browse(path)
    assert "<h1" in dom
    assert "This site can" not in dom


def test_no_script_of_a_model_runs(browse):
    for path in ("/-/ledger", "/-/ledger/session?id=s-bob", "/ledger/tool_call_log"):
        dom = browse(path)
        assert "<title>owned</title>" not in dom
        assert HOSTILE not in dom
