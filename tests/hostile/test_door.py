"""Exporters that mean harm, at the door for other agents, beside one that does not."""

import http.client
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from demo.processes import Service
from tests.hostile.conftest import Start
from tests.hostile.held import MIB
from tests.intake_svc.exports import JSON, PROTOBUF, calls, gzipped_zeros, otlp_json, post, send, within

GROWTH = 512 * MIB
"""What the door may take: 64 MiB as they come, as bytes, as messages and as texts, and 256 MiB that may wait."""

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(300), pytest.mark.growth(GROWTH)]

GZIP = {"Content-Encoding": "gzip"}
TRACES = "/v1/traces"
RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


def in_a_span(payload: bytes) -> bytes:
    """An export of one span with this content."""
    return within(1, within(2, within(2, payload)))


def with_texts(size: int) -> bytes:
    """A call whose every text has so many characters."""
    return calls(1, **{"gen_ai.tool.call.arguments": "x" * size, "nobody.reads": "y" * size}).SerializeToString()


def half_a_character(size: int) -> bytes:
    """A call in JSON, with a text of so many characters that ends within one."""
    return otlp_json(calls(1, **{"nobody.reads": "y" * size})).replace('y"', '\\ud83d"').encode()


def unreadable(count: int) -> bytes:
    spans = [{"startTimeUnixNano": "soon"}] * count
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def to_a_hook(body: bytes) -> Callable[[str, str], int]:
    return lambda _, address: post(address, "/hooks/claude", body, JSON)[0]


def posted(body: bytes, kind: str = PROTOBUF, headers: dict[str, str] | None = None) -> Callable[[str, str], int]:
    return lambda _, address: post(address, TRACES, body, kind, headers)[0]


def hundred_megabytes(_target: str, address: str) -> int:
    """In chunks, whose sum nothing tells before."""
    with suppress(ConnectionError):  # it is answered and closed before all is sent
        post(address, TRACES, (bytes(MIB) for _ in range(100)))
    return 413


def slow_bodies(_target: str, address: str) -> int:
    host, port = address.split(":")
    head = f"POST {TRACES} HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: 1000\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(50):
            client = stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
            client.sendall(head.encode() + b"x")
        assert post(address, TRACES, calls().SerializeToString())[0] == 200
    return 0


def exporters_at_once(target: str, address: str) -> int:
    def export(number: int) -> int:
        batch = calls(512, session=f"at-once-{number}").SerializeToString()
        if number % 2:
            return post(address, TRACES, batch)[0]
        send(target, batch)
        return 200

    with ThreadPoolExecutor(64) as pool:
        assert set(pool.map(export, range(64))) == {200}
    return 0


CASES: dict[str, tuple[Callable[[str, str], int], int]] = {
    "100 MB in chunks": (hundred_megabytes, 413),
    "a bomb of a gigabyte": (posted(gzipped_zeros(1024 * MIB), headers=GZIP), 413),
    "a bomb that just passes": (posted(gzipped_zeros(64 * MIB), headers=GZIP), 400),
    "deep JSON": (posted(b'{"resourceSpans":' + b"[" * 50_000 + b"]" * 50_000 + b"}", JSON), 400),
    "16 MB of empty resources": (posted(b"\x0a\x00" * (8 * MIB)), 400),
    "16 MB of empty spans": (posted(within(1, within(2, b"\x12\x00" * (8 * MIB)))), 413),
    "a million attributes": (posted(in_a_span(b"\x4a\x00" * 1_000_000)), 413),
    "as many attributes as pass": (posted(in_a_span(b"\x4a\x00" * 490_000)), 200),
    "texts of 30 MB": (posted(with_texts(30 * MIB)), 200),
    "texts of 30 MB that are no UTF-8": (posted(with_texts(30 * MIB).replace(b"yyyy", b"y\xff\xffy")), 200),
    "JSON of 30 MB with half a character": (posted(half_a_character(30 * MIB), JSON), 200),
    "spans that cannot be read": (posted(unreadable(40_000), JSON), 400),
    "a hook's event of 16 MB of lists": (to_a_hook(b"[" + b"[]," * (5 * MIB) + b"[]]"), 413),
    "slow bodies": (slow_bodies, 0),
    "64 exporters at once": (exporters_at_once, 0),
}


@contextmanager
def honest_exporter(service: Service) -> Iterator[None]:
    """One call an export, again and again while the body runs; it is answered, or told to come again and answered."""
    over, answered, wrong = threading.Event(), threading.Event(), []

    def keep_exporting() -> None:
        while not over.is_set():
            batch: ExportTraceServiceRequest = calls(1, session="honest")
            try:
                send(service.address, batch)
                answered.set()
            except grpc.RpcError as error:
                if error.code() not in RETRIED:
                    wrong.append(error)
            over.wait(0.05)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(keep_exporting)
        try:
            yield
            answered.clear()
            assert answered.wait(60), "it is not answered behind the attack"
        finally:
            over.set()
            running.result()
    assert wrong == []


def test_exporters_that_mean_harm_are_refused_and_one_beside_them_is_answered(start: Start) -> None:
    service = start("intake_svc", **settings(start))
    found = re.search(r'"address": "([^"]+)", "event": "http.listening"', service.stderr_text())
    assert found is not None
    with honest_exporter(service):
        answers = {}
        for name, (attack, _) in CASES.items():
            with suppress(http.client.HTTPException):
                answers[name] = attack(service.address, found[1])
    assert answers == {name: status for name, (_, status) in CASES.items()}


def settings(start: Start) -> dict[str, str]:
    """Of a door without a ledger: what is answered lies in its spool."""
    return {
        "INTAKE_LISTEN": "127.0.0.1:0",
        "INTAKE_HTTP_LISTEN": "127.0.0.1:0",
        "INTAKE_STATE_DIR": str(start.folder / "door"),
        "INTAKE_AUDIT_TARGET": "127.0.0.1:9",
    }
