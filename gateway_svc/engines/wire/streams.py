"""Splits the bytes of an answer into payloads, however the network fragmented them.

httpx2's aiter_lines would not do: it also breaks lines at characters such as U+2028, which JSON may contain unescaped.
Nor would its EventSource: it costs 0.14 ms of a step's 0.9 ms.
"""

import json
import re
from typing import Protocol

from service_kit.bounds import EVENT

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NAME = re.compile(rb"(?!message$)[\w.]{1,64}")
"""`message` is the name of an event that has none."""


class UnexpectedPage(ValueError):
    """The server sent a page for people."""

    def __init__(self) -> None:
        super().__init__("a page instead of an answer")


class Decoder(Protocol):
    """Splits one stream into payloads."""

    def feed(self, data: bytes) -> list[bytes]:
        """Returns the payloads that data completes. Raises Exceeded, UnexpectedPage."""
        ...

    def flush(self) -> list[bytes]:
        """Returns the payloads left at the end of the stream."""
        ...


class AnswerDecoder:
    """Detects the form of an answer by its first bytes, since servers send errors, and whole answers, under any content
    type.

    If it begins with a brace or a bracket, it is JSON: one payload a line if the first line is complete, else a single
    payload. If it begins with `<`, it is a page. Anything else is server-sent events.
    """

    def __init__(self) -> None:
        self._begin = b""
        self._rest: list[bytes] = []
        """What follows the beginning of a line of JSON that is not closed yet."""
        self._size = 0
        self._decoder: Decoder | None = None

    def feed(self, data: bytes) -> list[bytes]:
        if self._decoder is not None:
            return self._decoder.feed(data)
        if self._rest:
            self._rest.append(data)
            self._size = _checked(self._size + len(data))
            if b"\n" not in data:
                return []
            self._begin, data = b"".join(self._rest), b""
        begin = self._begin = (self._begin + data).removeprefix(_BYTE_ORDER_MARK).lstrip()
        if not begin or _BYTE_ORDER_MARK.startswith(begin):
            return []
        if begin.startswith(b"<"):
            raise UnexpectedPage
        if not begin.startswith((b"{", b"[")):
            self._decoder = EventDecoder()
        else:
            line, newline, _ = begin.partition(b"\n")
            if not newline:
                self._rest, self._size = [begin], _checked(len(begin))
                return []
            closes = b"]" if line.startswith(b"[") else b"}"
            self._decoder = LineDecoder() if line.rstrip().endswith(closes) else WholeDecoder()
        return self._decoder.feed(begin)

    def flush(self) -> list[bytes]:
        if self._decoder is None:
            begin = b"".join(self._rest) or self._begin
            return [begin] if begin.strip() else []
        return self._decoder.flush()


class LineDecoder:
    """Every line that is not blank is a payload: NDJSON."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        return [line for line in self.lines(data) if line.strip()]

    def lines(self, data: bytes) -> list[bytes]:
        """The lines that data completes, including blank ones, each without its newline."""
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._pieces:
            lines[0] = b"".join((*self._pieces, lines[0]))
            self._pieces.clear()
            self._size = 0
        if rest:
            self._pieces.append(rest)
            self._size = _checked(self._size + len(rest))
        return lines

    def flush(self) -> list[bytes]:
        return self.feed(b"\n")


class EventDecoder:
    """The data of each server-sent event is a payload. Comments, ids and events without data are ignored.

    An event's name becomes the field `type` of its data, as long as that has none of its own. An event `error` in plain
    words becomes an object too.

    Follows https://html.spec.whatwg.org/multipage/server-sent-events.html, but also accepts a last event without its
    blank line, which servers forget, and a line that is a JSON object, as some send errors.
    """

    def __init__(self) -> None:
        self._lines = LineDecoder()
        self._data: list[bytes] = []
        self._name = b""
        self._size = 0
        self._ends_in_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        if self._ends_in_cr:
            data, self._ends_in_cr = b"\r" + data, False
        if b"\r" in data:
            # a CR at the end may be the first half of a CRLF
            self._ends_in_cr = data.endswith(b"\r")
            data = data.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        payloads: list[bytes] = []
        for line in self._lines.lines(data):
            if line.startswith(b"data:"):
                said = line[5:].removeprefix(b" ")
                if said.startswith((b"data:", b":")):  # of a proxy that wraps lines once more, comments too
                    said = said[5:].removeprefix(b" ") if said.startswith(b"data:") else b""
                if self._data and self._data[-1].endswith(b"}") and said.startswith((b"{", b"[DONE]")):
                    self._end(payloads)
                self._data.append(said)
                self._size = _checked(self._size + len(line))
            elif not line:
                self._end(payloads)
                self._name = b""
            elif line.startswith(b"event:"):
                self._end(payloads)  # of a server that leaves blank lines out
                self._name = line[6:].strip()
            elif line.startswith((b"{", b"error: {")):
                payloads.append(line.removeprefix(b"error: "))
        return payloads

    def _end(self, payloads: list[bytes]) -> None:
        payload = b"\n".join(self._data)
        if payload.strip():
            payloads.append(_named(payload, self._name) if self._name else payload)
        self._data.clear()
        self._size = 0

    def flush(self) -> list[bytes]:
        return self.feed(b"\n\n")


class WholeDecoder:
    """The whole body is one payload: JSON without streaming."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        self._pieces.append(data)
        self._size = _checked(self._size + len(data))
        return []

    def flush(self) -> list[bytes]:
        whole = b"".join(self._pieces)
        return [whole] if whole.strip() else []


def _named(payload: bytes, name: bytes) -> bytes:
    """The payload with the name as its type; of two fields with one name, JSON's readers take the last."""
    if name == b"error" and not payload.lstrip().startswith((b"{", b"[")):
        return json.dumps({"error": payload.decode("utf-8", "replace")}).encode()
    if not payload.startswith(b"{") or not payload[1:].lstrip().startswith(b'"') or not _NAME.fullmatch(name):
        return payload
    return b'{"type":"%b",' % name + payload[1:]


def _checked(size: int) -> int:
    EVENT.check(size)
    return size
