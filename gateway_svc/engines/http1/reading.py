"""Reads a response of HTTP/1.1 (RFC 9112), however the network fragmented it."""

import re

from httpx2 import RemoteProtocolError

from service_kit.bounds import HEAD, PIECES, Exceeded

Headers = list[tuple[bytes, bytes]]

_STATUS = re.compile(rb"HTTP/(\d\.\d) ([1-9]\d\d)(?: ([^\x00\n\r\x0b\x0c]*))?\r?\n")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\x00\n\r\x0b\x0c]*)\r?\n")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,20})(?:[ \t]*|;[^\n\r]*)\r\n")
_EMPTY_LINE = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"\d{1,20}")
_SWITCHING_PROTOCOLS = 101
_WITHOUT_BODY = (204, 304)


class ResponseReader:
    """Takes the bytes of one response, and of the informational ones ahead of it."""

    def __init__(self, method: bytes) -> None:
        self.status = 0
        """0 until its head is there."""
        self.version = self.reason = b""
        self.headers: Headers = []
        self.ended = False
        self.error: Exception | None = None
        """What is wrong behind the pieces that feed() has returned."""
        self.may_stay_open = False
        """Whether the connection can take another request after this response."""
        self._method = method
        self._held = b""
        """What is not whole yet: a head, the line of a chunk, the trailers."""
        self._ahead_bytes = 0
        """The informational responses so far."""
        self._left: int | None = None
        """Bytes of the body, or of the current chunk; None where the end of the connection is its end."""
        self._chunks = 0
        """How many have begun."""
        self._is_chunked = self._closes_chunk = self._in_trailers = False

    def feed(self, data: bytes) -> list[bytes]:
        """Returns the pieces of the body in data. What is wrong behind some of them is `error`.

        Raises:
            RemoteProtocolError: it is not HTTP/1.1, or there is more than HEAD ahead of the body, or behind its end.
            Exceeded: it has more chunks than PIECES.
        """
        if self._held:
            data, self._held = self._held + data, b""
        if not self.status:
            data = self._read_heads(data)
        if not self.status or not data:
            return []
        if self.ended:
            self.may_stay_open = False  # these bytes answer nothing
            return []
        if self._is_chunked:
            pieces: list[bytes] = []
            try:
                return self._read_chunks(data, pieces)
            except (RemoteProtocolError, Exceeded) as error:
                if not pieces:
                    raise
                self.error = error
                return pieces
        if self._left is None:
            return [data]
        self.may_stay_open = self.may_stay_open and len(data) <= self._left
        data = data[: self._left]
        self._left -= len(data)
        self.ended = not self._left
        return [data]

    def end(self) -> None:
        """Takes the end of the connection. Raises RemoteProtocolError if the response is not whole."""
        self.may_stay_open = False
        if not self.status:
            raise RemoteProtocolError("Server disconnected without sending a response.")
        if self._is_chunked or self._left:
            raise RemoteProtocolError("peer closed connection without sending complete message body")
        self.ended = True

    def _read_heads(self, data: bytes) -> bytes:
        """Takes heads up to that of the response; returns what follows it."""
        at = 0
        while not self.status and at < len(data):
            if not data.startswith(b"HTTP/"[: len(data) - at], at):
                raise RemoteProtocolError("illegal status line")
            end = _end_of_lines(data, at)
            if self._ahead_bytes + (end or len(data)) - at > HEAD.limit:
                raise RemoteProtocolError(f"more than {HEAD.limit:,} {HEAD.of}")
            if not end:
                self._held = data[at:]
                return b""
            self._take_head(data[at:end])
            self._ahead_bytes += end - at
            at = end
        return data[at:]

    def _take_head(self, head: bytes) -> None:
        line = _STATUS.match(head)
        if line is None:
            raise RemoteProtocolError("illegal status line")
        self.version, self.reason, status = line[1], line[3] or b"", int(line[2])
        self.headers = _fields(head[line.end() :])
        if status == _SWITCHING_PROTOCOLS:
            raise RemoteProtocolError("a switch of protocols that nobody asked for")
        if status < 200:
            return
        self.status = status
        self._frame()

    def _frame(self) -> None:
        """Finds out where the body ends (RFC 9112, 6.3)."""
        lengths, codings, options = set[bytes](), list[bytes](), list[bytes]()
        for name, value in self.headers:
            match name.lower():
                case b"content-length":
                    lengths.update(map(bytes.strip, value.split(b",")))
                case b"transfer-encoding":
                    codings.append(value.lower())
                case b"connection":
                    options += map(bytes.strip, value.lower().split(b","))
        if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
            raise RemoteProtocolError("bad Content-Length")
        if codings not in ([], [b"chunked"]):
            raise RemoteProtocolError("unknown Transfer-Encoding")
        self.may_stay_open = self.version >= b"1.1" and b"close" not in options
        if self._method == b"HEAD" or self.status in _WITHOUT_BODY:
            self._left = 0
        elif codings:
            self._is_chunked, self._left = True, 0
            self.may_stay_open = self.may_stay_open and not lengths
        elif lengths:
            self._left = int(lengths.pop())
        self.ended = self._left == 0 and not self._is_chunked

    def _read_chunks(self, data: bytes, pieces: list[bytes]) -> list[bytes]:
        """Adds the pieces in data to `pieces`, and returns them."""
        at = 0
        while not self._in_trailers:
            if self._left:
                pieces.append(data[at : at + self._left])
                at += len(pieces[-1])
                self._left -= len(pieces[-1])
                if at == len(data):
                    return pieces
            if self._closes_chunk:
                if not data.startswith(b"\r\n", at):
                    return self._hold(data[at:], pieces, b"\r\n".startswith(data[at : at + 2]))
                at += 2
                self._closes_chunk = False
            line = _CHUNK.match(data, at)
            if line is None:
                return self._hold(data[at:], pieces, data.find(b"\n", at) < 0)
            at = line.end()
            self._left = int(line[1], 16)
            self._in_trailers, self._closes_chunk = not self._left, bool(self._left)
            self._chunks += 1
            PIECES.check(self._chunks)
        empty = next((line for line in (b"\r\n", b"\n") if data.startswith(line, at)), b"")
        end = at + len(empty) if empty else _end_of_lines(data, at)
        if not end:
            return self._hold(data[at:], pieces, may_go_on=True)
        _fields(data[at:end])
        self.ended, self._is_chunked = True, False
        self.may_stay_open = self.may_stay_open and end == len(data)
        return pieces

    def _hold(self, rest: bytes, pieces: list[bytes], may_go_on: bool) -> list[bytes]:
        if not may_go_on or len(rest) > HEAD.limit:
            raise RemoteProtocolError("illegal chunk")
        self._held = rest
        return pieces


def _end_of_lines(data: bytes, begin: int = 0) -> int:
    """Where the empty line after some lines ends; 0 if it is not there yet."""
    found = _EMPTY_LINE.search(data, begin)
    return found.end() if found else 0


def _fields(lines: bytes) -> Headers:
    """The fields of a head or of trailers, which end with an empty line."""
    if b"\n " in lines or b"\n\t" in lines:
        lines = _FOLD.sub(b" ", lines)
    fields, at = Headers(), 0
    while field := _FIELD.match(lines, at):
        fields.append((field[1], field[2].strip(b" \t")))
        at = field.end()
    if lines[at:] not in (b"\r\n", b"\n", b""):
        raise RemoteProtocolError("illegal header line")
    return fields
