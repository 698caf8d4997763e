"""What came back from a fetch, as text: decompressed up to a cap, decoded, and Markdown where it was HTML."""

import codecs
import re
import zlib
from collections.abc import Callable

from html_to_markdown import ConversionError, ConversionOptions, convert

from gateway_svc.tools import ToolError

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
TEXT_TYPES = frozenset(
    {
        *(
            "application/ecmascript",
            "application/graphql",
            "application/javascript",
            "application/json",
            "application/jsonl",
        ),
        *(
            "application/ld+json",
            "application/sql",
            "application/toml",
            "application/x-javascript",
            "application/x-ndjson",
        ),
        *("application/x-sh", "application/x-yaml", "application/xml", "application/yaml", "image/svg+xml"),
    }
)
# Python has codecs that are no character sets, and some that are slow on hostile input; these are what pages use.
CHARSETS = re.compile(
    r"(utf-?(8|16|16le|16be)|us-ascii|ascii|iso-?8859-?\d{1,2}|latin-?1|(windows-?|cp)(125\d|874|866|1252)"
    r"|koi8-?[ru]|gb(2312|k|18030)|big5(-?hkscs)?|shift[_-]?jis|euc-?(jp|kr)|iso-2022-jp|tis-620|macintosh)",
    re.IGNORECASE,
)
META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s{0,5}=\s{0,5}[\"']?([\w-]{2,20})", re.IGNORECASE)
BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
DROPPED_ELEMENTS = ["script", "style", "svg", "iframe", "object", "embed"]
SNIFFED_BYTES = 2048


class Body:
    """Takes a compressed or plain body piece by piece, and keeps at most max_bytes of what it decodes to."""

    def __init__(self, content_encoding: str, max_bytes: int) -> None:
        """`content_encoding` is the response's header.

        Raises:
            ToolError: an encoding that was not asked for.
        """
        self.content = bytearray()
        self.truncated = False
        self._max_bytes = max_bytes
        self._decode = _decoder(content_encoding)

    def feed(self, chunk: bytes) -> bool:
        """Takes the next piece; returns whether more is wanted.

        Raises:
            ToolError: it is not compressed as it says.
        """
        room = self._max_bytes - len(self.content)
        try:
            self.content += self._decode(chunk, room + 1)
        except zlib.error:
            raise ToolError("the response is not compressed as it says") from None
        if len(self.content) > self._max_bytes:
            self.truncated = True
            del self.content[self._max_bytes :]
        return not self.truncated


def _decoder(content_encoding: str) -> Callable[[bytes, int], bytes]:
    """Decodes a piece to at most so many bytes, however far it would expand."""
    match content_encoding.strip().lower():
        case "" | "identity":
            return lambda chunk, _: chunk
        case "gzip" | "x-gzip":
            return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress
        case "deflate":
            return zlib.decompressobj().decompress
        case _:
            raise ToolError("the response is compressed in a way that was not asked for")


def named_type(content_type: str) -> str | None:
    """The type that a Content-Type header names, in lower case without parameters; None when it names none."""
    named = content_type.partition(";")[0].strip().lower()
    return named if re.fullmatch(r"[\w.+-]{1,60}/[\w.+-]{1,60}", named, re.ASCII) else None


def guessed_type(content: bytes) -> str:
    """The type of what came without one."""
    start = content[:SNIFFED_BYTES].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "text/html"
    return "application/octet-stream" if b"\0" in start else "text/plain"


def is_text(media: str) -> bool:
    """Whether a model can read it."""
    return media.startswith("text/") or media in TEXT_TYPES | HTML_TYPES or media.endswith(("+json", "+xml", "+yaml"))


def page_text(content: bytes, media: str, content_type: str, url: str) -> str:
    """The text of a page. Takes time in proportion to its size, whatever is in it, and lets other threads run."""
    text = _decoded(content, content_type, html=media in HTML_TYPES)
    if media not in HTML_TYPES:
        return text
    options = ConversionOptions(base_url=url, skip_images=True, exclude_selectors=DROPPED_ELEMENTS)
    try:
        converted = convert(text.replace("\0", ""), options)
    except ConversionError:
        raise ToolError("the page's HTML cannot be read") from None
    return (converted.content or "").strip()


def _decoded(content: bytes, content_type: str, *, html: bool) -> str:
    for mark, codec in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return content.decode(codec, errors="replace")
    named = re.search(r"charset\s{0,5}=\s{0,5}[\"']?([\w-]{2,20})", content_type, re.IGNORECASE)
    charset = named[1] if named else ""
    if not charset and html and (declared := META_CHARSET.search(content[:SNIFFED_BYTES])):
        charset = declared[1].decode("ascii", errors="replace")
    if not CHARSETS.fullmatch(charset):
        charset = "utf-8"
    try:
        return content.decode(charset, errors="replace")
    except LookupError:
        return content.decode(errors="replace")
