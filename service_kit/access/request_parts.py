"""How many parts a request has, counted before it is parsed: two bytes of it can become hundreds in memory."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import aclosing
from functools import cache, partial
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from service_kit.errors import InvalidRequest
from service_kit.handlers import CallDetails, Context, Handler, HandlerInterceptor, decoded_by
from service_kit.time_slice import TimeSlice

MAX_PARTS = 12_000
"""Of one request. The largest that is taken is a batch of 10,000 rows, each one part."""
COUNTED_FROM_BYTES = 64 * 1024
"""Smaller requests become some megabytes at most, and are not counted."""
PIECE_BYTES = 16 * 1024
"""Of a request of a stream that is counted and parsed in one go, in a millisecond; a field is whole."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MORE, _BITS, _MAX_SHIFT = 0x80, 0x7F, 70

_SHORT_BYTES = 128
"""An element of fewer is not looked into where all are counted: it counts as one in eight bytes of it, at least as many
as honest ones have."""

Within = Mapping[int, "tuple[Descriptor | None, int]"]
"""The fields that have parts of their own, by number: the type of a message, None for packed scalars, and from how many
bytes on it is looked into."""


class RequestPartsInterceptor(HandlerInterceptor):
    """Ends a call whose request, or one request of whose stream, has more parts than MAX_PARTS: see check_parts().

    It goes behind all interceptors that take requests undecoded.
    """

    def __init__(self) -> None:
        self._parsing = asyncio.Lock()
        """Held by the stream whose large request is parsed: one at a time, since it takes far more memory than its
        bytes before anybody can bound it."""

    def wrap(self, handler: Handler, details: CallDetails) -> Handler:
        """Has the requests of the handler counted ahead of decoding."""
        descriptor = request_type(details.method)
        decode: Any = handler.request_deserializer
        if decode is bytes:  # the servicer counts them itself, when it decodes them
            return handler

        def counted(data: bytes) -> Message:
            check_parts(data, descriptor)
            message: Message = decode(data)
            return message

        if handler.request_streaming and inspect.isasyncgenfunction(handler.stream_stream):
            return _reading_late(handler, partial(self._parse, counted, descriptor))
        return decoded_by(handler, counted)

    async def _parse(self, small: Callable[[bytes], Message], descriptor: Descriptor | None, data: bytes) -> Message:
        if descriptor is None or len(data) <= COUNTED_FROM_BYTES:
            return small(data)
        async with self._parsing:
            time_slice = TimeSlice()
            await time_slice.give_way()
            return await time_slice.through(parse_in_steps(data, descriptor))


class _Received:
    """A request of a stream that can be taken once: gRPC holds on to it until the next one is read."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self) -> bytes:
        """Its bytes, the first time."""
        data, self._data = self._data, b""
        return data


def _reading_late(handler: Handler, decode: Callable[[bytes], Awaitable[Message]]) -> Handler:
    """The handler of a stream that decodes a request when it is read, and holds on to none."""
    behaviour: Any = handler.stream_stream

    async def decoded(requests: AsyncIterator[_Received]) -> AsyncIterator[Message]:
        async for request in requests:
            yield await decode(request.take())

    async def stream(requests: AsyncIterator[_Received], context: Context) -> AsyncIterator[Any]:
        async with aclosing(behaviour(decoded(requests), context)) as responses:
            async for response in responses:
                yield response

    make: Any = grpc.stream_stream_rpc_method_handler
    made: Handler = make(stream, request_deserializer=_Received, response_serializer=handler.response_serializer)
    return made


@cache
def request_type(method: str) -> Descriptor | None:
    """The type of the requests of method, /package.Service/Method; None where no proto that is loaded has it."""
    service, _, name = method.lstrip("/").rpartition("/")
    try:
        found: Descriptor = Default().FindServiceByName(service).methods_by_name[name].input_type
    except KeyError:
        return None
    return found


def count_all_parts(data: bytes, descriptor: Any, most: int) -> int:
    """As check_parts(), with the elements of fields that repeat looked into; it stops beyond `most`.

    An element of fewer than _SHORT_BYTES is not: it counts by its length.
    """
    try:
        return _count(data, 0, len(data), descriptor, _SHORT_BYTES, most)[0]
    except RecursionError:  # by far deeper than the parser takes
        return 0


def check_parts(data: bytes, descriptor: Any, elements_from: int = COUNTED_FROM_BYTES) -> None:
    """Counts the parts of an encoded message: each field each time that it comes, known or not, and each number in a
    packed one. Those of a message in a field that does not repeat count too, and those of an element of a field that
    does if it has elements_from bytes. Malformed data is left to the parser.

    Raises:
        InvalidRequest: there are more than MAX_PARTS.
    """
    if len(data) > COUNTED_FROM_BYTES:
        _check(_count(data, 0, len(data), descriptor, elements_from, MAX_PARTS)[0])


def parse_in_steps(data: bytes, descriptor: Descriptor) -> Generator[None, None, Message]:
    """The message of a large request, whose parts are counted on the way, as check_parts() does. In short steps.

    A group, which no proto of ours has, may lie across two of them, and is refused then.

    Raises:
        InvalidRequest: there are more than MAX_PARTS.
        DecodeError: it is none.
    """
    message, at, parts = GetMessageClass(descriptor)(), 0, 0
    while at < len(data):
        end = min(at + PIECE_BYTES, len(data))
        counted, end = _count(data, at, end, descriptor, COUNTED_FROM_BYTES, MAX_PARTS - parts)
        _check(parts := parts + counted)
        message.MergeFromString(data[at:end])
        at = end
        yield
    return message


def _check(parts: int) -> None:
    if parts > MAX_PARTS:
        raise InvalidRequest(f"the request has more than {MAX_PARTS:,} parts: send it in several", "")


def _count(
    data: bytes, at: int, end: int, descriptor: Descriptor | None, elements_from: int, most: int
) -> tuple[int, int]:
    """How many parts begin between at and end, at least, and where the last ends; it stops beyond most."""
    within = _within(descriptor, elements_from)
    parts = 0
    try:
        while at < end and parts <= most:
            parts += 1
            tag = data[at]
            at += 1
            if tag >= _MORE:
                if (high := data[at]) < _MORE:  # as of all fields to the 2,047th; a call of _varint() would cost more
                    tag += high - 1 << 7
                    at += 1
                else:
                    tag, at = _varint(data, at - 1)
            kind = tag & 7
            if kind == _LENGTH:
                length = data[at]
                at += 1
                if length >= _MORE:
                    if (high := data[at]) < _MORE:  # of nearly all rows; a call of _varint() would cost as much again
                        length += high - 1 << 7
                        at += 1
                    else:
                        length, at = _varint(data, at - 1)
                if (number := tag >> 3) in within:
                    of, least = within[number]
                    if of is None:
                        parts += length
                    elif length >= least:
                        parts += _count(data, at, at + length, of, elements_from, most - parts)[0]
                    elif least == _SHORT_BYTES:
                        parts += length >> 3
                at += length
            elif kind == _VARINT:
                while data[at] >= _MORE:
                    at += 1
                at += 1
            elif kind == _FIXED64:
                at += 8
            elif kind == _FIXED32:
                at += 4
            # What is in a group counts as if it were here.
    except IndexError:  # cut off
        at = len(data)
    return parts, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at at, and where it ends."""
    value = 0
    for shift in range(0, _MAX_SHIFT, 7):
        value |= (data[at] & _BITS) << shift
        at += 1
        if data[at - 1] < _MORE:
            return value, at
    raise IndexError  # longer than any number


@cache
def _within(descriptor: Descriptor | None, elements_from: int) -> Within:
    fields = descriptor.fields if descriptor else ()
    return {
        field.number: (field.message_type, elements_from if field.is_repeated else 0)
        for field in fields
        if field.message_type is not None or _is_packed(field)
    }


def _is_packed(field: FieldDescriptor) -> bool:
    return field.is_repeated and field.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
