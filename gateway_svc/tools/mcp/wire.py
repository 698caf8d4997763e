"""JSON-RPC as MCP servers write it: lines in, messages out. For unreadable messages it finds the likely request.

Reading is lenient: invalid UTF-8 and lone surrogates cost one character each, an array is several messages, and
absurdly long numbers become floats. What is read has at most JSON_VALUES values.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

from service_kit.bounds import Exceeded, check_json
from service_kit.time_slice import give_way

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
LARGE_BYTES = 256 * 1024
"""A pass over a larger message takes a millisecond."""
PAUSE_SECONDS = 0.003
"""After such a pass, which may take 70 ms: a call that came meanwhile needs several turns of the loop, and threads."""
MAX_DIGITS = 18
SCANNED_BYTES = 16_384
"""Of what cannot be read, from each of its ends: token by token, so it takes some 10 ms."""
KNOWN_CODES = {
    -32700: "parse error",
    -32600: "invalid request",
    -32601: "method not found",
    -32602: "invalid params",
    -32603: "internal error",
    -32002: "resource not found",
    -32020: "header mismatch",
    -32021: "missing required client capability",
    -32022: "unsupported protocol version",
}
"""The codes that the protocol names. The model sees a server's own codes, which are recorded as `other`."""

_STATUS_HINTS = {
    400: "",
    401: ": look at its headers in the MCP file",
    403: ": look at its headers in the MCP file",
    408: ": try again later",
    413: ": the arguments are too large",
}

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]')
_NUMBER = re.compile(rb"\s*:\s*\"?(\d{1,15})\b")
_ID = re.compile(rb'"id"\s*:\s*"?(\d{1,15})\b')
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


class Unreadable(Exception):
    """A message that is not JSON-RPC."""

    def __init__(self, ids: tuple[int, ...] = ()) -> None:
        super().__init__("a message that cannot be read")
        self.ids = ids
        """The ids of requests that it may answer, the likeliest first."""


class BadStatus(Exception):
    """A status of HTTP without an answer in the protocol."""

    def __init__(self, status: int) -> None:
        hint = ": try again later" if status == 429 or status >= 500 else _STATUS_HINTS.get(status, ": look at its url")
        super().__init__(f"answered HTTP {status}{hint}")


class Refusal(Exception):
    """A server's error response to a request. Its words are content."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__("the server refused")
        self.code = code
        self.message = message

    @property
    def name(self) -> str:
        """The code's name in the protocol, or `other`."""
        return KNOWN_CODES.get(self.code, "other")


async def read_json(line: bytes) -> Any:
    """The value of a line or a body. Others have their turn between two passes over a large one.

    Raises:
        Unreadable: it is malformed, or has too many values.
    """
    try:
        check_json(line)
        await _give_way(line)
        text = line.decode(errors="replace")
        await _give_way(line)
        value = json.loads(text, parse_int=_integer)
        await _give_way(line)
        if "\\u" not in text or not _HALF_PAIR.search(text):
            return value
        whole = json.dumps(value, ensure_ascii=False)
        await _give_way(line)
        try:
            whole.encode()
        except UnicodeEncodeError:
            return json.loads(whole.encode(errors="replace"))
        return value
    except (ValueError, RecursionError, Exceeded):
        raise Unreadable(_ids(line)) from None


def messages_of(value: Any) -> Iterator[dict[str, Any]]:
    """Yields the messages in a value that was read.

    Raises:
        Unreadable: it is malformed; of an array, after all messages that can be read.
    """
    listed = value if isinstance(value, list) else [value]
    messages = [message for message in listed if isinstance(message, dict)]
    yield from messages
    if len(messages) < len(listed):
        raise Unreadable


async def _give_way(line: bytes) -> None:
    if len(line) > LARGE_BYTES:
        await asyncio.sleep(PAUSE_SECONDS)
        await give_way()


def message_id(message: dict[str, Any]) -> int | None:
    """The id of our request that a message answers: a number, its text, or a float, as some languages write it."""
    value = message.get("id")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= MAX_DIGITS:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def refusal_of(error: Any) -> Refusal:
    """Reads the error member of an answer, whatever it contains."""
    fields = error if isinstance(error, dict) else {}
    code, message = fields.get("code"), fields.get("message")
    told = message if isinstance(message, str) else json.dumps(error)
    return Refusal(code if isinstance(code, int) else 0, told)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)


def _ids(line: bytes) -> tuple[int, ...]:
    """The ids in malformed JSON: those of the outermost object first, then others."""
    depth, found = 0, []
    for token in _TOKEN.finditer(line, 0, SCANNED_BYTES):
        match token[0]:
            case b"{" | b"[":
                depth += 1
            case b"}" | b"]":
                depth -= 1
            case b'"id"' if depth == 1 and (number := _NUMBER.match(line, token.end())):
                found.append(int(number[1]))
    ends = line[:SCANNED_BYTES] + b" " + line[-SCANNED_BYTES:]
    return tuple(dict.fromkeys([*found, *(int(number[1]) for number in _ID.finditer(ends))]))
