"""A page that means harm costs its own call; the turns of others go on."""

from pathlib import Path

import pytest

from tests.hostile.conftest import Start
from tests.hostile.held import MIB
from tests.hostile.house import Case, open_house
from tests.hostile.page_attacks import add_to
from tests.tools.pages import Pages

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(300)]

TOO_MUCH = "the page becomes too large, or takes too long, to be read"
BROKEN = "the host broke the connection, or the protocol"
SMALL = 64 * MIB
QUICK = {"/junk-behind-gzip", "/brotli", "/chunks", "/head", "/trailers"}


def cases(url: str) -> list[Case]:
    def fetch(path: str, outcomes: str, error: str = "", told: str = "") -> Case:
        return Case(path, ({"name": "webfetch", "arguments": {"url": url + path}},), outcomes, error, told, SMALL)

    return [
        fetch("/junk-behind-gzip", "SUCCEEDED", told="x"),
        fetch("/links", "SUCCEEDED|FAILED", f"^$|{TOO_MUCH}"),
        fetch("/redirect", "SUCCEEDED|FAILED", f"^$|{TOO_MUCH}"),
        fetch("/paragraphs", "SUCCEEDED|FAILED", f"^$|{TOO_MUCH}"),
        fetch("/rows", "SUCCEEDED|FAILED", f"^$|{TOO_MUCH}"),
        fetch("/gzip-bomb", "SUCCEEDED|FAILED", f"^$|{TOO_MUCH}"),
        fetch("/brotli", "FAILED", "compressed in a way that was not asked for"),
        fetch("/chunks", "FAILED", "too many pieces"),
        fetch("/chunk-extensions", "SUCCEEDED|FAILED", f"^$|{BROKEN}|too many pieces"),
        fetch("/trailers", "SUCCEEDED|FAILED", f"^$|{BROKEN}"),
        fetch("/informational", "FAILED", BROKEN),
        fetch("/head", "FAILED", BROKEN),
        fetch("/endless", "SUCCEEDED", told="The page goes on"),
        fetch("/round", "FAILED", "more than 10 redirects"),
    ]


@pytest.mark.parametrize("names", [QUICK, pytest.param(None, marks=pytest.mark.long)])
async def test_each_page_costs_its_own_call_and_nobody_else_feels_it(
    start: Start, tmp_path: Path, names: set[str] | None
):
    async with Pages() as pages:
        add_to(pages)
        async with open_house(start, tmp_path, GATEWAY_WEBFETCH_ALLOW=f"{pages.host}:{pages.port}") as house:
            wanted = [case for case in cases(pages.url) if names is None or case.name in names]
            assert await house.stand_all(wanted) == []
