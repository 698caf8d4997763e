"""A page that is small on the wire and large inside costs its own call, and the gateway no memory."""

import asyncio
import contextlib
import gzip
import os
import resource
import signal
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from onrecord.common.v1 import common_pb2

from gateway_svc.tools.webfetch import WebfetchTool
from gateway_svc.tools.workers import Workers
from tests.support.others import each_look_takes, others
from tests.tools.pages import Pages
from tests.tools.running import run

HTML = "Content-Type: text/html"
MAX_GROWTH_BYTES = 64 * 1024 * 1024


def table(cells: int) -> bytes:
    return b"<table><tr>" + b"<td colspan=1000000>x" * cells + b"</table>"


EXPLODING = {
    "a wide table": table(200_000),
    "rows by the widest": b"<table>"
    + b"<tr><td>x</td></tr>" * 8_000
    + b"<tr>"
    + b"<td>y</td>" * 8_000
    + b"</tr></table>",
    "nesting": b"<div>" * 100_000,
    "nested lists": b"<ul><li>" * 100_000,
    "nested quotes": b"<blockquote>" * 50_000 + b"x",
    "open paragraphs": b"<p>" * 1_600_000,
    "entities": b"&nGg;" * 900_000,
    "an attribute of megabytes": b'<a href="' + b"a" * 4_000_000 + b'">x</a>',
    "a million links": b"<a href=b>c</a>" * 300_000,
    "a base of 8 kB": b'<base href="http://a.test/' + b"a" * 8_000 + b'/">' + b"<a href=b>c</a>" * 60_000,
}


@pytest.fixture
async def pages() -> AsyncIterator[Pages]:
    async with Pages() as server:
        yield server


def fetcher(pages: Pages, **more: float) -> WebfetchTool:
    return WebfetchTool(Workers(), allow=[f"{pages.host}:{pages.port}"], **more)  # type: ignore[arg-type]


def peak() -> int:
    """The most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def workers_running() -> list[str]:
    """Workers that are children of this process."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and b"workers/main.py" in (entry / "cmdline").read_bytes():
                parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
                found += [entry.name] if parent == os.getpid() else []
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", EXPLODING)
async def test_a_page_that_explodes_ends_with_a_result_and_costs_the_gateway_no_memory(pages: Pages, workspace, name):
    body = gzip.compress(EXPLODING[name])
    pages.add("/page", body, headers=f"{HTML}\r\nContent-Encoding: gzip")
    before = peak()
    result = await run(fetcher(pages, timeout_seconds=20), workspace, url=f"{pages.url}/page")
    assert len(result.text) < 50_000
    assert peak() - before < MAX_GROWTH_BYTES
    assert workers_running() == []
    if result.error:
        assert result.error.startswith(
            ("the page becomes too large", "the page took too long", "the fetch took longer")
        )


@pytest.mark.long
async def test_a_page_that_needs_more_memory_than_a_worker_has_ends_its_worker(pages: Pages, workspace):
    body = gzip.compress(table(238_000))
    pages.add("/page", body, headers=f"{HTML}\r\nContent-Encoding: gzip")
    result = await run(fetcher(pages, timeout_seconds=600), workspace, url=f"{pages.url}/page")
    assert result.error
    assert result.error.startswith("the page becomes too large")


async def test_junk_behind_the_end_of_a_compressed_body_is_not_read(pages: Pages, workspace):
    """One byte, and then megabytes that are no gzip: they kept the decoder busy for seconds."""
    pages.add(
        "/page",
        gzip.compress(b"x") + os.urandom(4_000_000),
        headers="Content-Type: text/plain\r\nContent-Encoding: gzip",
    )
    result = await run(fetcher(pages), workspace, url=f"{pages.url}/page")
    assert (result.error, result.result_bytes) == (None, 1)


@pytest.mark.long
async def test_a_conversion_ends_with_its_deadline(pages: Pages, workspace):
    """A worker that stands still is killed."""
    pages.add("/page", gzip.compress(EXPLODING["open paragraphs"]), headers=f"{HTML}\r\nContent-Encoding: gzip")
    call = asyncio.create_task(run(fetcher(pages, timeout_seconds=1), workspace, url=f"{pages.url}/page"))
    while not (workers := workers_running()) and not call.done():
        await asyncio.sleep(0.005)
    for worker in workers:
        os.kill(int(worker), signal.SIGSTOP)
    result = await call
    assert result.outcome in (common_pb2.OUTCOME_TIMED_OUT, common_pb2.OUTCOME_FAILED)
    assert workers_running() == []


async def test_a_conversion_ends_with_its_turn(pages: Pages, workspace):
    pages.add("/page", zlib.compress(b"<p>" * 1_600_000), headers=f"{HTML}\r\nContent-Encoding: deflate")
    call = asyncio.create_task(run(fetcher(pages), workspace, url=f"{pages.url}/page"))
    while not workers_running() and not call.done():
        await asyncio.sleep(0.005)
    call.cancel()
    await asyncio.wait([call])
    assert workers_running() == []


async def test_a_body_of_chunks_of_one_byte_is_given_up(pages: Pages, workspace):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    pages.add_raw("/page", head + b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n")
    result = await run(fetcher(pages), workspace, url=f"{pages.url}/page")
    assert result.error == "the page comes in too many pieces"


async def test_others_have_their_turn_while_pieces_of_a_page_are_read(pages: Pages, monkeypatch: pytest.MonkeyPatch):
    each_look_takes(monkeypatch, 0.3)
    async with others() as beside:

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(1_000):
                beside.done += 1
                yield b"x"

        assert len(await fetcher(pages)._read(httpx2.Response(200, content=pieces()))) == 1_000
    assert 2 <= beside.most <= 4
