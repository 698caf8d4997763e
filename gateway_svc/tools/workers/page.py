"""A worker's job: decompresses, decodes and converts a response body on stdin to Markdown.

Its output is a line of JSON (the media type, the decompressed size, whether that was cut, the characters in all), then
as much of the text as was requested, in UTF-8.
"""

import codecs
import json
import re
import sys
import zlib
from typing import Any

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
# Python has codecs that are not character sets, and some that are slow on hostile input; pages use these.
CHARSETS = re.compile(
    r"(utf-?(8|16|16le|16be)|us-ascii|ascii|iso-?8859-?\d{1,2}|latin-?1|(windows-?|cp)(125\d|874|866|1252)"
    r"|koi8-?[ru]|gb(2312|k|18030)|big5(-?hkscs)?|shift[_-]?jis|euc-?(jp|kr)|iso-2022-jp|tis-620|macintosh)",
    re.IGNORECASE,
)
META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s{0,5}=\s{0,5}[\"']?([\w-]{2,20})", re.IGNORECASE)
BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
DROPPED_ELEMENTS = ["script", "style", "svg", "iframe", "object", "embed"]
SNIFFED_BYTES = 2048
WBITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
NOT_PACKED_AS_SAID, NOT_HTML = 3, 4
"""Exit codes for a body that is not compressed as its header says, and for HTML that cannot be read."""


def unpacked(body: bytes, encoding: str, max_bytes: int) -> tuple[bytes, bool]:
    """The body up to the first end of its compressed stream, and whether it was cut at max_bytes.

    Raises:
        zlib.error: it is not compressed as `encoding` says.
    """
    if encoding in WBITS:
        body = zlib.decompressobj(WBITS[encoding]).decompress(body, max_bytes + 1)
    return body[:max_bytes], len(body) > max_bytes


def guessed_type(content: bytes) -> str:
    """The type of a body without a Content-Type."""
    start = content[:SNIFFED_BYTES].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "text/html"
    return "application/octet-stream" if b"\0" in start else "text/plain"


def decoded(content: bytes, charset: str, *, html: bool) -> str:
    """Decodes bytes by their byte order mark, the header's charset, or the charset that the page declares."""
    for mark, codec in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return content.decode(codec, errors="replace")
    if not charset and html and (declared := META_CHARSET.search(content[:SNIFFED_BYTES])):
        charset = declared[1].decode("ascii", errors="replace")
    if not CHARSETS.fullmatch(charset):
        charset = "utf-8"
    try:
        return content.decode(charset, errors="replace")
    except LookupError:
        return content.decode(errors="replace")


def main(wanted: dict[str, Any]) -> int:
    """Converts stdin with the parameters in `wanted`."""
    import unseen  # type: ignore[import-not-found]  # it is beside this file, where a worker looks

    try:
        content, cut = unpacked(sys.stdin.buffer.read(), wanted["encoding"], wanted["max_bytes"])
    except zlib.error:
        return NOT_PACKED_AS_SAID
    media = wanted["media"] or guessed_type(content)
    text = decoded(content, wanted["charset"], html=media in HTML_TYPES)
    if media in HTML_TYPES:
        from html_to_markdown import ConversionError, ConversionOptions, convert

        dropped = [*DROPPED_ELEMENTS, *unseen.SELECTORS]
        options = ConversionOptions(base_url=wanted["url"], skip_images=True, exclude_selectors=dropped)
        seen, is_white = unseen.hide(unseen.without_invisible(text))
        try:
            text = (convert(seen, options).content or "").strip()
        except ConversionError:
            return NOT_HTML
        text = f"{unseen.WHITE_TEXT}\n\n{text}" if is_white else text
    text = unseen.without_invisible(text)  # those of references like &#8203; too
    told = {"media": media, "bytes": len(content), "cut": cut, "characters": len(text)}
    sys.stdout.buffer.write(json.dumps(told).encode() + b"\n")
    sys.stdout.buffer.write(text[: wanted["max_characters"]].encode(errors="replace"))
    return 0
