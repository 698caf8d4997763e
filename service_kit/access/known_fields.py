"""Requests with what this version does not know are refused: a filter that is passed over gives a wrong answer.

So are those with control characters in names: a filter that is cut short gives a wrong answer too.
"""

from collections.abc import Collection, Iterable, Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from service_kit.controls import check_controls
from service_kit.errors import InvalidRequest
from service_kit.handlers import CallDetails, Handler, HandlerInterceptor, decoded_by

NAMED_BYTES = 16 * 1024
"""The most that is looked through for the name of an unknown field: protobuf makes an object of each of them first, in
a second where a request has 3 MiB of them."""


class KnownFieldsInterceptor(HandlerInterceptor):
    """Ends a call whose single request has a field or an enum value that its type does not know, or a control character
    where none belongs.

    It goes behind all other interceptors, since they take requests undecoded. Requests that stream are let through.
    """

    def __init__(self, services: Iterable[str], besides: Collection[str] = ()) -> None:
        """Takes the full names of strict services, and their RPCs that are not, as /package.Service/Method."""
        self._services = tuple(f"/{service}/" for service in services)
        self._besides = besides

    def wrap(self, handler: Handler, details: CallDetails) -> Handler:
        """Has the handler's requests checked when they are decoded."""
        method = details.method
        if handler.request_streaming or method in self._besides or not method.startswith(self._services):
            return handler
        decode: Any = handler.request_deserializer

        def checked(data: bytes) -> Message:
            request: Message = decode(data)
            check_known(request)
            check_controls(request)
            return request

        return decoded_by(handler, checked)


def check_known(request: Message) -> None:
    """Checks a request, with all messages in it.

    Raises:
        InvalidRequest: a field or an enum value is not known.
    """
    copy = type(request)()
    copy.CopyFrom(request)
    copy.DiscardUnknownFields()
    if unknown_bytes := request.ByteSize() - copy.ByteSize():
        path = next(_unknown_fields(request, ""), "") if unknown_bytes <= NAMED_BYTES else ""
        which = f"a field {path}" if path else "fields"
        raise InvalidRequest(f"the request has {which} that this version does not know: upgrade it first", path)
    if _has_enums(request.DESCRIPTOR) and (path := next(_unknown_values(request, ""), "")):
        raise InvalidRequest(f"{path} has a value that this version does not know: upgrade it first", path)


def _unknown_fields(message: Message, path: str) -> Iterator[str]:
    for unknown in UnknownFieldSet(message):  # type: ignore[attr-defined] # it is a sequence
        yield f"{path}{unknown.field_number}"
    for field, value in message.ListFields():
        for part in _messages(field, value):
            yield from _unknown_fields(part, f"{path}{field.name}.")


def _unknown_values(message: Message, path: str) -> Iterator[str]:
    for field, value in message.ListFields():
        values = None if field.enum_type is None else field.enum_type.values_by_number
        if values is not None and any(number not in values for number in _each(field, value)):
            yield f"{path}{field.name}"
        for part in _messages(field, value):
            yield from _unknown_values(part, f"{path}{field.name}.")


def _each(field: FieldDescriptor, value: Any) -> Iterable[Any]:
    return value if field.is_repeated else (value,)


def _messages(field: FieldDescriptor, value: Any) -> Iterable[Message]:
    """The messages in a field; those of a map are its values."""
    if field.message_type is None:
        return ()
    if field.message_type.GetOptions().map_entry:
        return value.values() if field.message_type.fields_by_name["value"].message_type is not None else ()
    return _each(field, value)


@cache
def _has_enums(descriptor: Descriptor) -> bool:
    """Whether a message can have an enum. Requests nest, and do not contain themselves."""
    return any(
        field.enum_type is not None or (field.message_type is not None and _has_enums(field.message_type))
        for field in descriptor.fields
    )
