"""W3C's traceparent: what is read, and what counts as not told."""

import pytest

from service_kit.observing.trace_context import NO_TRACE, read_trace_context

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
GOOD = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@pytest.mark.parametrize("text", [GOOD, GOOD[:-2] + "00", f"cc{GOOD[2:]}-what-the-future-will-be-like"])
def test_the_trace_id_is_read(text):
    trace = read_trace_context([("other", b"\x00"), ("traceparent", text), ("tracestate", "a=b")])
    assert (trace.trace_id, trace.traceparent, trace.tracestate) == (TRACE_ID, text, "a=b")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        GOOD.upper(),
        f"{GOOD}-more",
        f"ff{GOOD[2:]}",
        GOOD.replace(TRACE_ID, "0" * 32),
        GOOD.replace("00f067aa0ba902b7", "0" * 16),
        GOOD.replace(TRACE_ID, TRACE_ID[:-1]),
        f"{GOOD}\nrow",
    ],
)
def test_what_is_malformed_counts_as_not_told(text):
    assert read_trace_context([("traceparent", text), ("tracestate", "a=b")]) is NO_TRACE


def test_a_call_without_it_has_no_trace():
    assert read_trace_context([]).trace_id == ""
