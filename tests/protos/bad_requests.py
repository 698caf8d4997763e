"""Bad requests for every RPC, made from the descriptors: a new RPC or field is among them by itself."""

import dataclasses
from collections.abc import Iterator
from typing import Any, TypeGuard

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording.channel.options import MAX_MESSAGE_BYTES
from recording.row_version import ROW_VERSION
from service_kit.errors import MAX_ID
from tests.protos.services import SERVICES

UNKNOWN = 1999
"""The number of a field that no message has."""
NOBODY = "nobody"
BASES: dict[str, dict[str, Any]] = {
    "RunTurn": {"input": "hi"},
    "UpdateSession": {"session_id": NOBODY, "update_mask": {"paths": ["model"]}},
    "AnswerToolCall": {"tool_call_id": NOBODY, "verdict": common_pb2.VERDICT_ALLOWED},
    "AttachTurn": {"turn_id": NOBODY},
    "StopAgents": {"scope": {"agent": NOBODY}, "reason": "a drill"},
    "Resume": {"stop_id": NOBODY, "reason": "the drill is over"},
    "GetSessionRecord": {"session": {"id": NOBODY}},
    "GetProof": {"kind": audit_pb2.ROW_KIND_TOOL_CALL, "row": {"id": NOBODY}},
    "Prune": {"created_before_ms": 1, "dry_run": True},
    "PlaceHold": {"name": NOBODY, "reason": "a drill"},
    "LiftHold": {"name": NOBODY, "reason": "a drill"},
    "Erase": {"row": {"id": NOBODY}, "reason": "a drill", "dry_run": True},
}
"""What a request needs to be good, but for what a case spoils."""
RECORDING = ("Record", "RecordBatch")
"""A batch says its row_version in the place of unknown fields being refused, and its rows are rejected one by one."""
INTEGERS = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
RESOURCES = {
    "session_id": "session",
    "turn_id": "turn",
    "tool_call_id": "tool_call",
    "stop_id": "stop",
    "session.id": "session",
    "row.id": "tool_call",
    "Erase.row.id": "row",
}
"""What an id of a request names, which is looked up."""
OTHER_IDS = {
    *(
        "request_id",
        "filter.session_id",
        "filter.turn_id",
        "filter.id",
        "range.producer_id",
        "parent_turn_id",
        "filter.parent_turn_id",
    ),
    *(f"filter.calls.{name}" for name in ("session_id", "turn_id", "id", "parent_turn_id", "args_digest.key_id")),
    *("args_digest.key_id", "filter.args_digest.key_id"),
}
"""Filters, and ids that are the caller's own."""
NEEDED = {"target"}
"""The oneofs that must be set; the others have a meaning when they are not."""
TOO_LARGE = bytes(MAX_MESSAGE_BYTES + 1)
"""gRPC itself refuses it, before a service sees any of it: without details, and so without RetryInfo."""


@dataclasses.dataclass(frozen=True)
class BadRequest:
    """A request as bytes, and the refusal that it must get."""

    method: MethodDescriptor
    kind: str
    request: bytes = dataclasses.field(repr=False)
    status: str = "INVALID_ARGUMENT"
    reason: str = "INVALID_REQUEST"
    field: str = ""
    metadata: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.method.name}-{self.kind}-{self.field or 'whole'}"

    @property
    def path(self) -> str:
        return f"/{self.method.containing_service.full_name}/{self.method.name}"


METHODS = [method for service in SERVICES for method in service.methods]


def base(method: MethodDescriptor) -> Any:
    return GetMessageClass(method.input_type)(**BASES.get(method.name, {}))


def fields(descriptor: Descriptor, path: tuple[FieldDescriptor, ...] = ()) -> Iterator[tuple[FieldDescriptor, ...]]:
    """The paths of all fields of a request, but for the inside of maps and of Google's own types."""
    for found in descriptor.fields:
        yield (*path, found)
        if is_ours(found.message_type):
            yield from fields(found.message_type, (*path, found))


def is_ours(message: Descriptor | None) -> TypeGuard[Descriptor]:
    return message is not None and not message.GetOptions().map_entry and message.full_name.startswith("onrecord.")


def named(path: tuple[FieldDescriptor, ...]) -> str:
    return ".".join(part.name for part in path)


def put(request: Any, path: tuple[FieldDescriptor, ...], value: Any) -> Any:
    """Sets the field at path, and returns the request."""
    at = request
    for part in path[:-1]:
        inner = getattr(at, part.name)
        at = inner.add() if part.is_repeated else inner
        if not part.is_repeated:
            at.SetInParent()
    if path[-1].is_repeated:
        getattr(at, path[-1].name).append(value)
    else:
        setattr(at, path[-1].name, value)
    return request


def spoil(request: Any, path: tuple[FieldDescriptor, ...]) -> Message:
    """Puts a field that nobody knows into the message at path."""
    at = request
    for part in path:
        inner = getattr(at, part.name)
        at = inner.add() if part.is_repeated else inner
    at.MergeFromString(bytes(varint(UNKNOWN << 3)) + b"\x01")
    return request  # type: ignore[no-any-return]


def varint(number: int) -> Iterator[int]:
    while number > 127:
        yield number & 127 | 128
        number >>= 7
    yield number


def table() -> Iterator[BadRequest]:
    for method in METHODS:
        yield BadRequest(method, "garbage", b"\xff\xff", reason="DECODE_ERROR")
        yield BadRequest(method, "too_large", TOO_LARGE, status="RESOURCE_EXHAUSTED", reason="")
        if method.name in RECORDING:
            yield from _of_batch(method)
            continue
        yield BadRequest(method, "unknown_field", spoil(base(method), ()).SerializeToString(), field=str(UNKNOWN))
        for oneof in method.input_type.oneofs:
            if oneof.name in NEEDED:
                yield BadRequest(method, "unset", b"", field=oneof.name)
        for path in fields(method.input_type):
            yield from _of_field(method, path)


def _of_batch(method: MethodDescriptor) -> Iterator[BadRequest]:
    good: dict[str, Any] = {"producer_id": "p", "first": 1, "last": 1}
    newest = (("row_version", str(ROW_VERSION)),)
    for version in (0, -1):
        unset = audit_pb2.RecordRequest(row_version=version).SerializeToString()
        yield BadRequest(method, f"version_{version}", unset, field="row_version")
    newer = audit_pb2.RecordRequest(row_version=ROW_VERSION + 1).SerializeToString()
    yield BadRequest(method, "newer", newer, "FAILED_PRECONDITION", "ROW_VERSION_TOO_NEW", metadata=newest)
    for name, value in (("producer_id", ""), ("producer_id", "x" * 129), ("first", -1), ("first", 0), ("last", -1)):
        numbers = audit_pb2.SequenceRange(**{**good, name: value})
        request = audit_pb2.RecordRequest(row_version=ROW_VERSION, range=numbers).SerializeToString()
        yield BadRequest(method, str(value)[:2] or "empty", request, field=f"range.{name}")


def _of_field(method: MethodDescriptor, path: tuple[FieldDescriptor, ...]) -> Iterator[BadRequest]:
    last, name = path[-1], named(path)

    def bad(kind: str, value: Any, **expected: Any) -> BadRequest:
        request = put(base(method), path, value)
        if "update_mask" in method.input_type.fields_by_name and path[0].name == "settings":
            request.update_mask.paths[:] = [path[1].name]  # what it does not name is not looked at
        return BadRequest(method, kind, request.SerializeToString(), **{"field": name, **expected})

    if is_ours(last.message_type):
        spoiled = spoil(base(method), path).SerializeToString()
        yield BadRequest(method, "unknown_field", spoiled, field=f"{name}.{UNKNOWN}")
    if last.enum_type is not None:
        yield bad("unknown_value", 99)
    if last.cpp_type in INTEGERS:
        reason = "INVALID_PAGE" if last.name == "page_size" else "INVALID_REQUEST"
        yield bad("negative", -1, reason=reason)
    if last.name in ("page_token", "resume_token"):
        yield bad("made_up", "bm9uZQ", reason="INVALID_PAGE")
    if last.name == "update_mask":
        request = base(method)
        request.update_mask.paths[:] = ["no_such_field"]
        yield BadRequest(method, "unknown_path", request.SerializeToString(), field=name)
    if name in RESOURCES:
        yield bad("empty", "")
        for kind, unknown in (("unknown_id", NOBODY), ("long_id", "x" * 2000)):
            resource = RESOURCES.get(f"{method.name}.{name}", RESOURCES[name])
            told = (("resource", resource), ("id", unknown[:MAX_ID]))
            yield bad(kind, unknown, status="NOT_FOUND", reason="NOT_FOUND", field="", metadata=told)
