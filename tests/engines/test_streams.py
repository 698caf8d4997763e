"""Decoders: the same payloads come out wherever the bytes are split."""

import json
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway_svc.engines.wire import streams
from gateway_svc.engines.wire.streams import Decoder, EventDecoder, LineDecoder, WholeDecoder
from service_kit.bounds import Bound, Exceeded

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)
OBJECTS = st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=6)
CUTS = st.lists(st.integers(min_value=0, max_value=120), max_size=12)
NEWLINES = st.sampled_from(["\n", "\r\n", "\r"])


def decode(decoder: Decoder, data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[start:end] for start, end in pairwise(edges)]
    return [payload for piece in pieces for payload in decoder.feed(piece)] + decoder.flush()


@pytest.mark.long
@given(OBJECTS, CUTS, st.booleans(), st.booleans())
@example([{"a": "line\u2028separator\x85and\x0b"}], [3], False, True)
def test_lines_come_out_whole_wherever_they_are_split(objects, cuts, ascii_only, ends_in_newline):
    """JSON may hold characters that Python takes for line breaks."""
    data = "\n".join(json.dumps(value, ensure_ascii=ascii_only) for value in objects).encode("utf-8", "replace")
    payloads = decode(LineDecoder(), data + (b"\n" if ends_in_newline else b""), cuts)
    assert b"\n".join(payloads) == data


@pytest.mark.long
@given(OBJECTS, CUTS, NEWLINES, st.sampled_from(["data:", "data: "]), st.booleans(), st.booleans())
def test_events_come_out_whole_wherever_they_are_split(objects, cuts, newline, field, ends_in_blank_line, with_others):
    """With each newline that the standard allows, with comments and other fields, and without a last blank line."""
    texts = [json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode() for value in objects]
    others = [": keep-alive", "event: message", "id: 7", "retry: 10", "database: not ours"] if with_others else []
    blocks = [newline.join([*others, f"{field}{text}", ""]) for text in texts]
    data = newline.join(blocks) + (newline if ends_in_blank_line else "")
    assert decode(EventDecoder(), data.encode(), cuts) == [text.encode() for text in texts]


@given(CUTS, NEWLINES)
@example([len("data: {\r")], "\r\n")
def test_an_event_of_several_data_lines_is_one_payload(cuts, newline):
    """Half of a CRLF must not pass for the blank line that ends an event."""
    data = newline.join(["data: {", "data:", "data: }", "", "data: [DONE]", "", ""]).encode()
    assert decode(EventDecoder(), data, cuts) == [b"{\n\n}", b"[DONE]"]


@pytest.mark.parametrize("decoder", [LineDecoder, EventDecoder])
def test_only_a_single_payload_is_limited_not_their_sum(
    decoder: Callable[[], Decoder], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(streams, "EVENT", Bound("event_bytes", 20, "bytes"))
    endless, payloads = decoder(), 0
    for _ in range(50):
        payloads += len(endless.feed(b"data: x")) + len(endless.feed(b"y\n\n"))
    assert payloads == 50


@given(CUTS)
def test_a_body_that_is_no_stream_is_one_payload(cuts):
    assert decode(WholeDecoder(), b'{\n  "error": "no"\n}\n', cuts) == [b'{\n  "error": "no"\n}\n']
    assert decode(WholeDecoder(), b" \n", cuts) == []


@pytest.mark.parametrize(
    ("decoder", "piece"),
    [
        (LineDecoder, b"x" * 600),
        (EventDecoder, b"data: " + b"x" * 600),
        (EventDecoder, b"data: x\n"),
        (WholeDecoder, b"x\n"),
    ],
)
def test_a_payload_without_an_end_is_refused_before_it_fills_the_memory(
    decoder: Callable[[], Decoder], piece: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(streams, "EVENT", Bound("event_bytes", 1000, "bytes"))
    endless = decoder()

    def feed() -> None:
        for _ in range(1001):
            endless.feed(piece)

    with pytest.raises(Exceeded):
        feed()
