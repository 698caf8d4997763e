"""Responses are read as h11 reads them, wherever their bytes are split."""

from collections.abc import Iterable
from itertools import pairwise

import h11
import pytest
from httpx2 import RemoteProtocolError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway_svc.engines.http1.reading import ResponseReader
from tests.support.examples import examples

NEWLINES = st.sampled_from([b"\r\n"] * 8 + [b"\n"])
STATUS_LINES = st.sampled_from(
    [b"HTTP/1.1 200 OK"] * 8
    + [b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 X", b"HTTP/1.1 500 a\tb \xff"]
    + [
        b"HTTP/1.1 999 ",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/11 200 OK",
        b"ICY 200 OK",
        b"",
        b" HTTP/1.1 200",
    ]
)
AHEAD = st.sampled_from([b""] * 6 + [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 X\r\nlink: </a>\r\n\r\n"] * 2)
FIELDS = st.sampled_from(
    [b"x-a: b", b"x-a:b ", b"X-A:\t", b"x-a: b\r\n  folded", b"x-a: b\n\tfolded", b"x-a: \x01\x7f"]
    + [b"connection: close", b"Connection: Keep-Alive, CLOSE"]
    + [b"content-length: %b" % length for length in (b"0", b"5", b"6", b"5, 5", b"5,", b"-1", b"+5", b"0x5", b"")]
    + [b"transfer-encoding: %b" % coding for coding in (b"Chunked", b"gzip, chunked", b"identity")]
    + [b"x-a : b", b": b", b"x-a", b" x-a: b", b"x-a: \x00", b"x-a: b\rc", b"\xff: b"]
)
BYTES = st.binary(max_size=12)
EXTENSIONS = st.sampled_from([b""] * 4 + [b";a", b";a=b;c", b" ", b" ;a", b";\xff", b"g", b";a\t "])
SIZES = st.sampled_from([b"%x"] * 6 + [b"%X", b"000%x", b"0x%x", b"+%x", b"%x\r"])
ENDS = st.sampled_from(
    [b"0\r\n\r\n"] * 6
    + [b"0\r\nx-t: a\r\nx-u: b\r\n\r\n", b"0\r\n\n", b"00;a\r\n\r\n", b"0\n\r\n", b"0\r\nbad\r\n\r\n", b"0\r\n"]
)
CUTS = st.lists(st.integers(min_value=0, max_value=200), max_size=12)


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    body = b""
    for data in draw(st.lists(BYTES.filter(bool), max_size=4)):
        body += draw(SIZES) % len(data) + draw(EXTENSIONS) + draw(NEWLINES) + data
        body += draw(st.sampled_from([b"\r\n"] * 8 + [b"\n", b"xx"]))
    return body + draw(ENDS)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    framing, body = draw(
        st.sampled_from([b"transfer-encoding: chunked"]).flatmap(lambda line: st.tuples(st.just(line), chunks()))
        | st.tuples(st.just(b"content-length: 5"), st.just(b"hello") | BYTES)
        | st.tuples(st.just(b"x-b: c"), BYTES)
    )
    fields = draw(st.permutations([framing, *draw(st.lists(FIELDS, max_size=2))]))
    head = b"".join(line + draw(NEWLINES) for line in [draw(STATUS_LINES), *fields, b""])
    whole = draw(AHEAD) + head + body + draw(st.sampled_from([b""] * 4 + [b"HTTP/1.1 200 OK\r\n\r\n", b"\r\n"]))
    if draw(st.integers(min_value=0, max_value=5)) == 0:
        at = draw(st.integers(min_value=0, max_value=len(whole)))
        whole = whole[:at] + draw(st.sampled_from([b"", b"\r", b"\n", b"\x00", b":", b"z"])) + whole[at + 1 :]
    return whole[: draw(st.integers(min_value=0, max_value=len(whole)))] if draw(st.booleans()) else whole


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


Read = tuple[int, list[tuple[bytes, bytes]], bytes, bool]
"""Status, fields, body, and whether the connection can serve again; None in its place: it is no response."""


def ours(pieces: list[bytes], method: bytes) -> Read | None:
    reader, body, may_stay_open = ResponseReader(method), b"", False
    try:
        for piece in pieces:
            body += b"".join(reader.feed(piece))
        if reader.ended:
            may_stay_open = reader.may_stay_open
        else:
            reader.end()
    except RemoteProtocolError:
        return None
    return reader.status, told(reader.headers), body, may_stay_open


def told(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Without what h11 rewrites, and what comes out in the body."""
    return [(name, value) for name, value in fields if name.lower() not in (b"content-length", b"transfer-encoding")]


def of_h11(data: bytes, method: bytes) -> Read | None:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    status, fields, body = 0, list[tuple[bytes, bytes]](), b""
    try:
        for piece in (data, b""):
            connection.receive_data(piece)
            while (event := connection.next_event()) is not h11.NEED_DATA:
                match event:
                    case h11.Response():
                        status, fields = event.status_code, told(event.headers.raw_items())
                    case h11.Data():
                        body += bytes(event.data)
                    case h11.EndOfMessage():
                        done = connection.their_state is h11.DONE and not connection.trailing_data[0]
                        stays_open = done and piece != b""
                        return status, fields, body, stays_open
                    case h11.ConnectionClosed():
                        return None
    except h11.RemoteProtocolError:
        pass
    return None


@pytest.mark.long
@settings(max_examples=examples(500), derandomize=True)
@given(responses(), CUTS, st.sampled_from([b"POST", b"GET", b"HEAD"]))
@example(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", [40, 50, 57], b"POST")
@example(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\n", [], b"POST")
def test_a_response_is_what_h11_takes_it_for(data, cuts, method):
    """Split anywhere, with extensions, trailers, folded lines, early ends, bytes behind the end, and single mistakes.

    A response that says both how long it is and that it comes in chunks has its connection closed, as RFC 9112 wants.
    """
    read, expected = ours(split(data, cuts), method), of_h11(data, method)
    assert (read and read[:3]) == (expected and expected[:3])
    if read and expected and read[3] != expected[3]:
        assert b"content-length" in data.lower()
        assert b"chunked" in data.lower()
        assert not read[3]


def test_what_is_whole_is_not_lost_by_what_is_wrong_behind_it_in_one_segment():
    response = ResponseReader(b"POST")
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert response.feed(head + b"5\r\nhello\r\nno number\r\n") == [b"hello"]
    assert isinstance(response.error, RemoteProtocolError)
    with pytest.raises(RemoteProtocolError):
        ResponseReader(b"POST").feed(head + b"no number\r\n")
