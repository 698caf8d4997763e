"""What people do not see of a page does not reach the model as a part of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway_svc.tools.webfetch import WebfetchTool
from gateway_svc.tools.workers import Workers
from gateway_svc.tools.workers.unseen import WHITE_TEXT, hide
from tests.tools.pages import Pages
from tests.tools.running import run

HIDDEN = (
    "hidden",
    'aria-hidden="true"',
    'style="display:none"',
    'style="visibility: hidden"',
    "style='position:absolute; left:-9999px'",
    'style="text-indent:-2000em"',
    'style="color:#FFF; background: white !important"',
    'style="color:#123456;background-color:#123456"',
    'style="color: rgba(0, 0, 0, 0)"',
    'STYLE = "opacity: 0"',
    'style="font-size:0px"',
    'style="position:absolute;clip:rect(0,0,0,0)"',
    'style="clip-path: inset(100%)"',
    'style="transform:scale(0)"',
)
SEEN = (
    'style="color:#fff;background:#000"',
    'style="opacity:0.9"',
    'style="left:-10px"',
    'style="font-size:0.8em"',
    'style="color:red;background:white"',
    'style="border-color:transparent"',
    'style="clip:auto"',
)
INVISIBLE = "\u200b\u202e\u2066\u00ad\ufeff\U000e0041\U000e0042\U000e01f0\x1b\x07\x9b"


@pytest.fixture
async def pages() -> AsyncIterator[Pages]:
    async with Pages() as server:
        yield server


async def fetched(pages: Pages, body: str, media: str) -> str:
    pages.add("/page", body, headers=f"Content-Type: {media}; charset=utf-8")
    tool = WebfetchTool(Workers(), allow=[f"{pages.host}:{pages.port}"])
    return (await run(tool, Path("/"), url=f"{pages.url}/page")).text


async def test_what_styles_hide_is_left_out_and_nothing_else(pages: Pages):
    parts = [f"<p {how}>hides{at}.</p>" for at, how in enumerate(HIDDEN)]
    parts += [f"<p {how}>shows{at}.</p>" for at, how in enumerate(SEEN)]
    text = await fetched(pages, "<html>" + "".join(parts), "text/html")
    assert "hides" not in text
    assert [f"shows{at}." in text for at in range(len(SEEN))] == [True] * len(SEEN)
    assert WHITE_TEXT not in text


async def test_white_text_that_may_stand_on_white_is_told(pages: Pages):
    text = await fetched(pages, '<p>seen</p><p style="color:white">orders</p>', "text/html")
    assert WHITE_TEXT in text


@pytest.mark.parametrize("media", ["text/html", "text/plain", "application/json"])
async def test_characters_that_show_nothing_are_left_out(pages: Pages, media: str):
    text = await fetched(pages, f"a{INVISIBLE}b c می‌خواهم 👩‍🚀", media)
    assert not any(character in text for character in INVISIBLE)
    assert "ab c می‌خواهم 👩‍🚀" in text


async def test_characters_that_a_reference_names_are_left_out_too(pages: Pages):
    assert "ab" in await fetched(pages, "<p>a&#x200b;&#xe0041;b</p>", "text/html")


def test_looking_at_styles_takes_time_in_proportion_to_the_page():
    """Attributes that never end, and many of them: each is looked at once."""
    assert hide(" style=" * 300_000 + ' style="' + "a" * 1_000_000)[1] is False
    assert hide(' style="' + ";" * 3_000 + '"' * 300_000)[1] is False
