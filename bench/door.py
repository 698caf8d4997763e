"""(l) Spans a second through intake_svc to a synced spool and to the ledger's ack, against a server that parses alone.

An export is what the SDK sends by default, 512 spans: an agent's turns by the conventions for generative AI, each with
its frame, two model requests with their messages, and a tool call with its arguments.
"""

import asyncio
import http.client
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from bench.figures import Figure, Target, compare
from bench.services import printing_address, start_ledger
from demo.processes import Service, start_service
from recording.channel.options import DIRECT

SPANS = 512
SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
TARGET = Target(max_ours=50)
"""Microseconds of a core a span: 20,000 spans a second."""

_BEGAN_NS = time.time_ns() - 3_600 * 10**9
_TICKS = os.sysconf("SC_CLK_TCK")

Send = Callable[[bytes], None]
"""Sends an export, and returns when it is answered."""


def measure(place: Path, *, short: bool) -> list[Figure]:
    """The figures over gRPC and HTTP, with answers after the disk's sync and after the ledger's ack."""
    exports, rounds = (10, 3) if short else (100, 6)
    figures: list[Figure] = []
    with ExitStack() as stack:
        ledger = stack.enter_context(start_ledger(place))
        bare = stack.enter_context(_bare())
        for after, where in (("spool", "a synced spool"), ("ledger", "the ledger's ack")):
            door = stack.enter_context(start_door(place / after, ledger.address, after))
            for way, open_way, address in (
                ("gRPC", over_grpc, door.address),
                ("HTTP", _over_http, door.http_address),
            ):
                with open_way(address) as send, bare() as send_bare:
                    runs = [(_run(send, door.pid, exports), _run(send_bare, 0, exports)) for _ in range(rounds)]
                name = f"(l) spans over {way} to {where}; to a server that only parses, over gRPC"
                ours, baseline = zip(*((one[0], other[0]) for one, other in runs), strict=True)
                figures.append(compare(name, "spans/s", ours, baseline, None))
                cpu = statistics.median(one[1] for one, _ in runs)
                told = Figure(f"(l) CPU time of the door a span, over {way} to {where}", "us", cpu, target=TARGET)
                figures.append(told)
    return figures


def start_door(state: Path, ledger: str, answer_after: str) -> Service:
    """intake_svc in front of the ledger at an address. answer_after: spool or ledger."""
    env = {
        "INTAKE_LISTEN": "127.0.0.1:0",
        "INTAKE_HTTP_LISTEN": "127.0.0.1:0",
        "INTAKE_STATE_DIR": str(state),
        "INTAKE_AUDIT_TARGET": ledger,
        "INTAKE_ANSWER_AFTER": answer_after,
    }
    return start_service("intake_svc", env, "serve")


def _run(send: Send, pid: int, exports: int) -> tuple[float, float]:
    """Sends exports one after the other. Spans a second, and the CPU time that the process took for each in us."""
    batches = [export() for _ in range(exports)]
    cpu, began = cpu_seconds(pid), time.perf_counter()
    for batch in batches:
        send(batch)
    spans, seconds = exports * SPANS, time.perf_counter() - began
    return spans / seconds, (cpu_seconds(pid) - cpu) / spans * 1e6


def export() -> bytes:
    """An export of spans that were never sent before."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    _put(resource.resource, {"service.name": "bench-agent", "service.version": "1.0"})
    scope = resource.scope_spans.add()
    scope.scope.name = "an-agent"
    for turn in range(SPANS // 4):
        trace, frame, session = random.randbytes(16), random.randbytes(8), f"session-{turn // 16}"
        for kind in ("invoke_agent", "chat", "execute_tool", "chat"):
            span = scope.spans.add(
                trace_id=trace,
                span_id=frame if kind == "invoke_agent" else random.randbytes(8),
                parent_span_id=b"" if kind == "invoke_agent" else frame,
                name=kind,
                start_time_unix_nano=_BEGAN_NS + turn * 10**6,
                end_time_unix_nano=_BEGAN_NS + turn * 10**6 + 10**8,
            )
            _put(span, {"gen_ai.operation.name": kind, "gen_ai.conversation.id": session, **_SAID[kind]()})
    return request.SerializeToString()


def _request() -> dict[str, str | int]:
    return {
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.usage.input_tokens": random.randrange(100_000),
        "gen_ai.usage.output_tokens": random.randrange(2_000),
        "gen_ai.input.messages": "x" * 2_000,
        "gen_ai.output.messages": "y" * 500,
        "server.address": "api.openai.com",
    }


def _call() -> dict[str, str | int]:
    arguments = {"path": f"src/part_{random.randrange(1_000)}/module.py", "limit": random.randrange(500)}
    return {
        "gen_ai.tool.name": "read_file",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": f"call_{random.randbytes(12).hex()}",
        "gen_ai.tool.call.arguments": json.dumps(arguments),
        "gen_ai.tool.call.result": "z" * 1_000,
    }


_SAID: dict[str, Callable[[], dict[str, str | int]]] = {
    "invoke_agent": lambda: {"gen_ai.agent.name": "bench"},
    "chat": _request,
    "execute_tool": _call,
}


def _put(part: Any, said: dict[str, str | int]) -> None:
    for key, value in said.items():
        kind = "int_value" if isinstance(value, int) else "string_value"
        setattr(part.attributes.add(key=key).value, kind, value)


@contextmanager
def over_grpc(address: str) -> Iterator[Send]:
    """What sends exports to a receiver of OTLP/gRPC."""
    with grpc.insecure_channel(address, DIRECT) as channel:
        call: Any = channel.unary_unary(
            f"/{SERVICE}/Export", response_deserializer=ExportTraceServiceResponse.FromString
        )

        def send(data: bytes) -> None:
            assert not call(data, timeout=60).HasField("partial_success")

        yield send


@contextmanager
def _over_http(address: str) -> Iterator[Send]:
    connection = http.client.HTTPConnection(address, timeout=60)
    try:

        def send(data: bytes) -> None:
            connection.request("POST", "/v1/traces", data, {"Content-Type": "application/x-protobuf"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200

        yield send
    finally:
        connection.close()


@contextmanager
def _bare() -> Iterator[Callable[[], Any]]:
    """What opens a way to a server that parses an export and answers: what any receiver in Python does at least."""
    with printing_address([sys.executable, "-m", "bench.door"]) as address:
        yield lambda: over_grpc(address)


async def _serve_bare() -> None:
    async def answer(request: ExportTraceServiceRequest, _context: Any) -> ExportTraceServiceResponse:
        return ExportTraceServiceResponse()

    make: Any = grpc.unary_unary_rpc_method_handler
    handler = make(
        answer,
        request_deserializer=ExportTraceServiceRequest.FromString,
        response_serializer=ExportTraceServiceResponse.SerializeToString,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has taken so far; 0 for none."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    asyncio.run(_serve_bare())
