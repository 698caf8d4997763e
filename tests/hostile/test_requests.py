"""Requests that are small on the wire and large when they are parsed, for each RPC of both services."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from audit_svc.services import ROLES as AUDIT_ROLES
from gateway_svc.servicer import ROLES as GATEWAY_ROLES
from service_kit.access.request_parts import request_type
from tests.hostile.conftest import Start
from tests.hostile.held import MIB, forget_peak, memory
from tests.hostile.honest import honest_caller

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(300)]

LIMITS = {"gateway_svc": 3 * MIB, "audit_svc": 4 * MIB}
REFUSED = grpc.StatusCode.INVALID_ARGUMENT
HEALTH, REFLECTION = "/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def methods(module: str) -> list[str]:
    roles = {"gateway_svc": GATEWAY_ROLES, "audit_svc": AUDIT_ROLES}[module]
    return [f"/{service}/{method}" for service, allowed in roles.items() for method in allowed]


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def tag(field: FieldDescriptor) -> bytes:
    return varint(field.number << 3 | 2)


def attacks(descriptor: Descriptor, size: int, path: str = "") -> Iterator[tuple[str, bytes]]:
    """Each way to fill size bytes of a message with parts, by its path."""
    yield f"{path}unknown", b"\xc0\x3e\x01" * (size // 3)
    for field in descriptor.fields:
        name, head = f"{path}{field.name}", tag(field)
        of = field.message_type
        if field.is_repeated and (of or field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)):
            yield f"{name}[]", (head + b"\0") * (size // (len(head) + 1))
        elif field.is_repeated:
            room = size - 16
            yield f"{name} packed", head + varint(room) + b"\1" * room
            yield f"{name}[]", (varint(field.number << 3) + b"\1") * (size // (len(head) + 1))
        if of is not None and not of.GetOptions().map_entry:
            for inner, payload in attacks(of, size - 16, f"{name}."):
                yield inner, head + varint(len(payload)) + payload


def send(channel: grpc.Channel, method: str, payload: bytes) -> grpc.StatusCode:
    service, _, name = method.lstrip("/").rpartition("/")
    descriptor = request_type(method)
    assert descriptor is not None
    found = descriptor.file.pool.FindServiceByName(service).methods_by_name[name]
    kind = "_".join("stream" if side else "unary" for side in (found.client_streaming, found.server_streaming))
    call: Any = getattr(channel, kind)(method)
    try:
        answer = call(
            iter([payload]) if found.client_streaming else payload, timeout=60, compression=grpc.Compression.Gzip
        )
        for _ in answer if found.server_streaming else ():
            break
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


@pytest.mark.parametrize("module", LIMITS)
def test_requests_of_many_parts_are_refused_before_they_are_parsed(start: Start, module: str):
    """Every RPC, every field that repeats, at any depth; sixteen at once. Others are answered meanwhile."""
    limit = LIMITS[module] - 64
    service = start(module)
    with (
        honest_caller(service, module),
        grpc.insecure_channel(service.address) as channel,
        ThreadPoolExecutor(16) as pool,
    ):
        before = forget_peak(service)
        for method in [*methods(module), HEALTH]:
            descriptor = request_type(method)
            assert descriptor is not None
            cases = list(attacks(descriptor, limit))
            codes = list(pool.map(lambda case, method=method: send(channel, method, case[1]), cases))
            for (path, _), code in zip(cases, codes, strict=True):
                assert code is REFUSED, (method, path, code)
            assert memory(service, "VmHWM") - before < 256 * MIB, method


@pytest.mark.parametrize("module", LIMITS)
def test_a_request_larger_than_its_limit_is_refused_before_it_is_unpacked(start: Start, module: str):
    service = start(module)
    with (
        honest_caller(service, module),
        grpc.insecure_channel(service.address) as channel,
        ThreadPoolExecutor(16) as pool,
    ):
        before = forget_peak(service)
        for method in methods(module):
            codes = list(pool.map(lambda _, method=method: send(channel, method, b"\x1a\0" * 3 * MIB), range(2)))
            assert set(codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}, method
        assert memory(service, "VmHWM") - before < 256 * MIB
