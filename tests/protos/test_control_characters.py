"""Every string of every message that comes in holds to one rule about control characters: from the descriptors."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from onrecord.audit.v1 import administration_pb2, audit_pb2, proof_pb2, questions_pb2
from onrecord.gateway.v1 import approvals_pb2, control_pb2, gateway_pb2

from audit_svc.ledger.batch import read_batch
from recording.rows import control_row
from service_kit.controls import TEXTS, check_controls
from service_kit.errors import InvalidRequest
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, record_request, session_row

REQUESTS = [
    method.input_type
    for module in (administration_pb2, questions_pb2, proof_pb2, approvals_pb2, control_pb2, gateway_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
ROWS = {"tool_calls": audit_row(), "model_requests": cost_row(), "sessions": session_row()}
ROWS["controls"] = control_row(audit_pb2.CONTROL_KIND_STOP, scope="everything")
CONTROLS = ("\0", "\n", "\t", "\x1b", "\x7f", "\x85")


def strings(descriptor: Any, path: tuple[FieldDescriptor, ...] = ()) -> Iterator[tuple[FieldDescriptor, ...]]:
    """The paths of all strings below a message; of a map its own field, then that of its key or value."""
    for field in descriptor.fields:
        if field.message_type is not None:
            yield from strings(field.message_type, (*path, field))
        elif field.type == FieldDescriptor.TYPE_STRING:
            yield (*path, field)


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def say(message: Any, path: tuple[FieldDescriptor, ...], text: str) -> str:
    """Sets the string at path, and says which field a refusal must name."""
    field, *rest = path
    if is_map(field):
        getattr(message, field.name)[text if rest[0].name == "key" else "k"] = text if rest[0].name == "value" else "v"
    elif rest:
        inner = getattr(message, field.name)
        return f"{field.name}.{say(inner.add() if field.is_repeated else inner, tuple(rest), text)}"
    elif field.is_repeated:
        getattr(message, field.name).append(text)
    else:
        setattr(message, field.name, text)
    return str(field.name)


def is_text(path: tuple[FieldDescriptor, ...]) -> bool:
    return path[-1].full_name in TEXTS


@pytest.mark.parametrize("descriptor", REQUESTS, ids=lambda descriptor: descriptor.name)
def test_what_a_client_asks_has_no_control_characters_in_names_and_no_nul_in_texts(descriptor):
    for path in strings(descriptor):
        for control in CONTROLS:
            request: Message = GetMessageClass(descriptor)()
            at = say(request, path, f"a{control}b")
            if is_text(path) and control != "\0":
                check_controls(request)
                continue
            with pytest.raises(InvalidRequest) as refused:
                check_controls(request)
            assert refused.value.field == at


@pytest.mark.parametrize("name", ROWS)
def test_a_row_with_a_control_character_is_rejected_by_itself(name):
    good = ROWS[name]
    for path in strings(good.DESCRIPTOR):
        for control in CONTROLS:
            bad = type(good)()
            bad.CopyFrom(good)
            at = say(bad, path, f"a{control}b")
            rows: dict[str, Any] = {name: [good, bad, good]}
            found = read_batch(record_request(**rows), NOW_MS)
            if is_text(path) and control != "\0":
                assert (len(found), found.rejections) == (3, [])
                continue
            (rejection,) = found.rejections
            assert (len(found), rejection.index, rejection.field) == (2, 1, at)
            assert rejection.code == audit_pb2.REJECTION_CODE_INVALID


def test_every_text_is_a_field_that_there_is():
    for name in TEXTS:
        Default().FindFieldByName(name)
