"""The events of a stream are the same, however it is cut into chunks."""

from collections.abc import AsyncIterator

import httpx2
from hypothesis import given
from hypothesis import strategies as st

from gateway_svc.tools.mcp.http import _events, _Place

LINES = st.sampled_from(
    [b"data:", b"data: ", b"data: a", b"data:  b ", b"data:c:d", b"dat", b": data: e", b"id: 1", b"", b""]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r\r\n"])


@given(lines=st.lists(st.tuples(LINES, ENDS), max_size=12), sizes=st.lists(st.integers(1, 8), min_size=1))
async def test_a_cut_anywhere_changes_nothing(lines: list[tuple[bytes, bytes]], sizes: list[int]):
    body = b"".join(line + end for line, end in lines)

    async def content() -> AsyncIterator[bytes]:
        at = number = 0
        while at < len(body):
            yield body[at : at + sizes[number % len(sizes)]]
            at, number = at + sizes[number % len(sizes)], number + 1

    expected, data = list[bytes](), list[bytes]()
    for line, _ in lines:
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line:
            expected += [b"\n".join(data)] if any(data) else []
            data = []
    if any(data):
        expected.append(b"\n".join(data))
    assert [event async for event in _events(httpx2.Response(200, content=content()), _Place())] == expected
