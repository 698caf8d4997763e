"""No URL, redirect or resolver makes webfetch connect to what is not public."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest
from onrecord.common.v1 import common_pb2

from gateway_svc.tools import ToolError
from gateway_svc.tools.web.addresses import refusal
from gateway_svc.tools.web.destination import Destinations, SystemResolver
from gateway_svc.tools.webfetch import WebfetchTool
from gateway_svc.tools.workers import Workers
from recording.calls import ToolResult
from tests.tools.attack_urls import ALL, NAMES, REFUSED
from tests.tools.pages import Pages
from tests.tools.running import run


class Resolver:
    """Answers for the names of the suite, leaves numbers to the operating system, and counts."""

    def __init__(self, names: dict[str, Sequence[str]] | None = None) -> None:
        self.names = names or NAMES
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host in self.names:
            return self.names[host]
        numeric = all(part[:1].isdecimal() for part in host.split("."))
        return await SystemResolver()(host, port) if numeric or host == "localhost" else []


@pytest.fixture
async def pages() -> AsyncIterator[Pages]:
    async with Pages() as server:
        yield server


RULES = {
    **dict.fromkeys(("an address that is not public", "a metadata service"), "webfetch_address"),
    "a port that is not listed": "webfetch_port",
    "credentials": "webfetch_credentials",
}
"""The rule that refuses the URLs of a kind, but for those that are no URL at all, such as one with an octal address."""


def outcome_by(rule: str) -> common_pb2.Outcome.ValueType:
    """What a rule refuses is denied; what is no URL, or names no host, was tried and failed."""
    return common_pb2.OUTCOME_DENIED if rule else common_pb2.OUTCOME_FAILED


def test_the_suite_is_as_large_as_it_says():
    assert len(set(ALL)) == len(ALL) >= 150


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_hostile_url_is_refused_before_anything_is_connected_to(kind: str, workspace: Path):
    urls, told = REFUSED[kind]
    tool = WebfetchTool(Workers(), resolver=Resolver(), timeout_seconds=5)
    by_rule = 0
    for url in urls:
        result = await run(tool, workspace, url=url)
        assert result.outcome == outcome_by(result.rule), url
        assert result.error, url
        assert result.rule in {"", RULES.get(kind, result.rule)}, url
        by_rule += bool(result.rule)
        assert any(piece in result.error for piece in told), (url, result.error)
        assert result.http_status is None, url
        assert "connect" not in result.error, url
        assert "test" not in result.error, url
    assert by_rule or kind not in RULES


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]", "0"],
)
async def test_allowing_one_host_allows_no_other_way_to_write_it(pages: Pages, workspace: Path, host: str):
    """What is on the list is a name, not the address that it has."""
    tool = WebfetchTool(
        Workers(), allow=[f"allowed.test:{pages.port}"], ports=(80, 443, pages.port), resolver=Resolver()
    )
    result = await run(tool, workspace, url=f"http://{host}:{pages.port}/secret")
    assert result.outcome == outcome_by(result.rule)
    assert result.rule in ("", "webfetch_address")
    assert pages.requests == []


@pytest.fixture
def tool(pages: Pages) -> WebfetchTool:
    """May fetch from the server of the test."""
    return WebfetchTool(Workers(), allow=[f"127.0.0.1:{pages.port}"], resolver=Resolver())


async def fetch_by_redirect(tool: WebfetchTool, pages: Pages, workspace: Path, location: str) -> ToolResult:
    pages.redirect("/start", location)
    return await run(tool, workspace, url=f"{pages.url}/start")


@pytest.mark.long
@pytest.mark.parametrize("kind", REFUSED)
async def test_a_redirect_to_a_hostile_url_is_refused_too(kind: str, tool: WebfetchTool, pages: Pages, workspace: Path):
    urls = [url for url in REFUSED[kind][0] if url.isascii() and url.isprintable() and "//" in url[:9]]
    for url in urls:
        if url.startswith("//") or url in ("http://", "http:///", "http://:80/"):
            continue  # relative to a page, these are URLs of another kind
        pages.requests.clear()
        result = await fetch_by_redirect(tool, pages, workspace, url.strip())
        assert result.outcome == outcome_by(result.rule), url
        assert result.http_status == 302, url
        assert result.error, url
        assert result.error.startswith(("the page redirects to", "the page leads on")), url
        assert "connect" not in result.error, url
        assert set(pages.requests) == {"/start"}, url


@pytest.mark.parametrize(
    "location",
    ["//127.0.0.1/secret", "http:/\\127.0.0.1/secret", "/\\127.0.0.1:1/", "http:127.0.0.1/", "\\\\127.0.0.1\\x"],
)
async def test_a_redirect_that_is_written_oddly_leads_nowhere_else(
    tool: WebfetchTool, pages: Pages, workspace: Path, location: str
):
    result = await fetch_by_redirect(tool, pages, workspace, location)
    assert result.http_status in (302, 404)
    assert all(path != "/secret" for path in pages.requests)


async def test_each_hop_of_a_chain_is_checked(pages: Pages, workspace: Path):
    pages.redirect("/one", "/two")
    pages.redirect("/two", f"http://127.0.0.1:{pages.port}/three")
    pages.redirect("/three", "http://metadata.test/latest")
    tool = WebfetchTool(Workers(), allow=[f"127.0.0.1:{pages.port}"], resolver=Resolver())
    result = await run(tool, workspace, url=f"{pages.url}/one")
    assert result.error is not None
    assert result.error.endswith("it is a metadata service")
    assert pages.requests == ["/one", "/two", "/three"]


async def test_a_circle_of_redirects_ends(pages: Pages, workspace: Path):
    pages.redirect("/start", "/start")
    tool = WebfetchTool(Workers(), allow=[f"127.0.0.1:{pages.port}"], resolver=Resolver())
    result = await run(tool, workspace, url=f"{pages.url}/start")
    assert result.error == "the page leads on through more than 10 redirects"
    assert len(pages.requests) == 11


async def test_a_name_that_changes_its_address_is_connected_to_where_it_was_checked(workspace: Path):
    """DNS rebinding: a second look at the name would give another machine."""
    answers = iter(["127.0.0.1"])

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return [next(answers, "127.0.0.2")]

    async with Pages() as checked, Pages(host="127.0.0.2", port=checked.port) as other:
        tool = WebfetchTool(Workers(), allow=[f"rebinding.test:{checked.port}"], resolver=rebinding)
        result = await run(tool, workspace, url=f"http://rebinding.test:{checked.port}/page")
        assert result.http_status == 404
        assert checked.requests == ["/page"]
        assert checked.hosts == [f"rebinding.test:{checked.port}"]
        assert other.requests == []


async def test_a_name_that_changes_its_address_between_two_hops_is_checked_again(pages: Pages, workspace: Path):
    answers = iter(["127.0.0.1"])

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return [next(answers, "169.254.169.254")]

    pages.redirect("/start", "/latest/meta-data")
    tool = WebfetchTool(Workers(), allow=[f"rebinding.test:{pages.port}"], resolver=rebinding)
    result = await run(tool, workspace, url=f"http://rebinding.test:{pages.port}/start")
    assert result.error is not None
    assert result.error.endswith("it is a metadata service")
    assert pages.requests == ["/start"]


async def test_a_name_is_asked_for_once_a_hop(pages: Pages, workspace: Path):
    resolver = Resolver({"allowed.test": ["127.0.0.1"]})
    tool = WebfetchTool(Workers(), allow=[f"allowed.test:{pages.port}"], resolver=resolver)
    await run(tool, workspace, url=f"http://allowed.test:{pages.port}/page")
    assert resolver.asked == ["allowed.test"]


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "::ffff:0:169.254.169.254",
        "::169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::169.254.169.254",
        "2002:a9fe:a9fe::1",
        "2001:0:1:2::5601:5601",
        "fe80::5efe:169.254.169.254",
        "fd00:ec2::254",
        "fd00:ec2::254%1",
    ],
)
async def test_no_way_to_write_the_address_of_a_metadata_service_is_allowed_by_a_name(address: str):
    async def answers(host: str, port: int) -> Sequence[str]:
        return [address]

    destinations = Destinations(allow=["inside.test"], ports=[80], resolver=answers)
    with pytest.raises(ToolError, match="a metadata service"):
        await destinations.check("http://inside.test/latest")


@pytest.mark.parametrize("entry", ["metadata.test", "169.254.169.254.", "[::ffff:a9fe:a9fe]"])
async def test_the_allow_list_gives_no_metadata_by_a_name(entry: str, workspace: Path):
    """Whoever can change the zone of an allowed name could otherwise point it there."""
    tool = WebfetchTool(Workers(), allow=["metadata.test"], resolver=Resolver(), timeout_seconds=1)
    result = await run(tool, workspace, url=f"http://{entry}/")
    assert result.error is not None
    assert "it is " in result.error


async def test_no_proxy_of_the_environment_is_used(pages: Pages, workspace: Path, monkeypatch: pytest.MonkeyPatch):
    """A proxy would resolve the name by itself, and connect to whatever it finds."""
    async with Pages() as proxy:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name)
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        tool = WebfetchTool(Workers(), allow=[f"127.0.0.1:{pages.port}"], resolver=Resolver())
        await run(tool, workspace, url=f"{pages.url}/page")
        assert pages.requests == ["/page"]
        assert proxy.requests == []


async def test_what_a_site_sets_is_not_sent_back(pages: Pages, workspace: Path):
    pages.add("/set", headers="Set-Cookie: session=secret; Path=/\r\nWWW-Authenticate: Basic realm=x")
    pages.redirect("/start", "/set", headers="Set-Cookie: session=secret; Path=/")
    tool = WebfetchTool(Workers(), allow=[f"127.0.0.1:{pages.port}"], resolver=Resolver())
    for path in ("/set", "/start", "/set"):
        await run(tool, workspace, url=pages.url + path)
    assert len(pages.heads) == 4
    assert not any(name in head.lower() for head in pages.heads for name in ("cookie", "authorization", "referer"))


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"),
        *("128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255"),
        *("192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "93.184.215.14"),
        *("2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888", "2001:200::1", "64:ff9b::808:808"),
        *("2600::", "2003::1", "3ffe::1"),
    ],
)
def test_public_addresses_are_not_refused(address: str):
    """The tables must not take more than they say."""
    assert refusal(ip_address(address)) is None


async def test_a_resolver_that_does_not_answer_is_not_waited_for(workspace: Path):
    async def silent(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        return []

    result = await run(
        WebfetchTool(Workers(), resolver=silent, timeout_seconds=0.1), workspace, url="http://public.test/"
    )
    assert result.outcome == common_pb2.OUTCOME_TIMED_OUT


@pytest.mark.parametrize("make", [lambda port: f"127.0.0.1:{port}", lambda port: f" 127.0.0.1:{port} "])
async def test_what_is_allowed_is_fetched(pages: Pages, workspace: Path, make: Callable[[int], str]):
    pages.add("/page", "hello")
    tool = WebfetchTool(Workers(), allow=[make(pages.port)])
    assert (await run(tool, workspace, url=f"{pages.url}/page")).text.endswith("hello")
