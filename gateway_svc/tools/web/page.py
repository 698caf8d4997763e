"""Response bodies: which are text, and their conversion in a worker."""

import json
import os
import re
from dataclasses import dataclass

from onrecord.common.v1 import common_pb2

from gateway_svc.tools import ToolError
from gateway_svc.tools.workers import Workers
from gateway_svc.tools.workers.page import HTML_TYPES, NOT_HTML, NOT_PACKED_AS_SAID, WBITS

TEXT_TYPES = frozenset(
    f"application/{name}"
    for name in (
        *("ecmascript", "graphql", "javascript", "json", "jsonl", "ld+json", "sql", "toml", "x-javascript"),
        *("x-ndjson", "x-sh", "x-yaml", "xml", "yaml"),
    )
) | {"image/svg+xml"}
CHARSET = re.compile(r"charset\s{0,5}=\s{0,5}[\"']?([\w-]{2,20})", re.IGNORECASE)
MAX_UTF8_BYTES = 4
MAX_HEAD_BYTES = 1_000


@dataclass(frozen=True, slots=True)
class Page:
    """A body as text."""

    media: str
    text: str
    """Its beginning, as much as was requested."""
    characters: int
    """The length of the whole text, in characters."""
    size: int
    """The decompressed size, in bytes."""
    cut: bool
    """Whether the body was longer than the limit."""


def named_type(content_type: str) -> str | None:
    """The type in a Content-Type header, in lower case without parameters; None if there is none."""
    named = content_type.partition(";")[0].strip().lower()
    return named if re.fullmatch(r"[\w.+-]{1,60}/[\w.+-]{1,60}", named, re.ASCII) else None


def is_text(media: str) -> bool:
    """Whether a model can read it."""
    return media.startswith("text/") or media in TEXT_TYPES | HTML_TYPES or media.endswith(("+json", "+xml", "+yaml"))


def encoding(content_encoding: str) -> str:
    """The compression of a body, by its header.

    Raises:
        ToolError: it was not requested.
    """
    named = content_encoding.strip().lower()
    if named not in ("", "identity", *WBITS):
        raise ToolError("the response is compressed in a way that was not asked for")
    return named


async def make_page(
    workers: Workers,
    body: bytes,
    *,
    content_encoding: str,
    content_type: str,
    url: str,
    max_bytes: int,
    max_characters: int,
    seconds: float,
) -> Page:
    """Decompresses and converts a body in a worker, which is killed if that becomes too large or takes too long.

    Raises:
        ToolError: the body does not match its headers, or exceeds the worker's limits.
    """
    charset = CHARSET.search(content_type)
    wanted = {
        "encoding": content_encoding,
        "media": named_type(content_type),
        "charset": charset[1] if charset else "",
        "url": url,
        "max_bytes": max_bytes,
        "max_characters": max_characters,
    }
    descriptor = os.memfd_create("page")
    try:
        os.write(descriptor, body)
        os.lseek(descriptor, 0, os.SEEK_SET)
        most = MAX_HEAD_BYTES + MAX_UTF8_BYTES * max_characters
        ended = await workers.run("page", wanted, stdin=descriptor, timeout_seconds=seconds, max_output_bytes=2 * most)
    except OSError as error:
        raise ToolError(f"no worker could be started for the page ({type(error).__name__})") from None
    finally:
        os.close(descriptor)
    if ended.timed_out:
        raise ToolError("the page took too long to read and was given up", outcome=common_pb2.OUTCOME_TIMED_OUT)
    if ended.exit_code:
        raise ToolError(
            {
                NOT_PACKED_AS_SAID: "the response is not compressed as it says",
                NOT_HTML: "the page's HTML cannot be read",
            }.get(ended.exit_code, "the page becomes too large, or takes too long, to be read")
        )
    head, _, text = ended.output.text().partition("\n")
    told = json.loads(head)
    return Page(told["media"], text, told["characters"], told["bytes"], told["cut"])
