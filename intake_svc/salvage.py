"""What is left of an export of which a part cannot be read: one bad text or span never costs what is around it.

It is asked only where a parser refuses the whole, so that honest exports pay nothing for it.
"""

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

NOT_READ = "its JSON cannot be read"
"""Why a span or a log record was not taken."""
REFUSED = (ValueError, RecursionError, ParseError, AttributeError, TypeError, SystemError)
"""What ParseDict raises for JSON that is not of a message's form; the last for half a character in a field's name."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_SHIFT = 70
_SPANS_AT = 3
"""How deep in an export spans and log records are."""
_MOST_FAULTS = 8
"""Of one text that are mended one by one; of one with more, all that is not ASCII goes."""


def with_valid_texts(data: bytes, descriptor: Any) -> bytes:
    """An encoded message whose texts are UTF-8: each byte that is not becomes `?`.

    Exporters cut texts at a number of bytes, and protobuf then refuses the whole. The lengths stay, so that nothing is
    framed anew. Malformed data is left to the parser. So are resources, scopes and spans in which it finds no fault: it
    is far faster than what walks through the others here.
    """
    mended = bytearray(data)
    waiting: list[tuple[int, int, Any, int]] = [(0, len(data), descriptor, 0)]
    try:
        while waiting:
            at, end, message, depth = waiting.pop()
            if 0 < depth <= _SPANS_AT and _is_valid(data[at:end], message):
                continue
            while at < end:
                tag, at = _varint(data, at)
                kind = tag & 7
                if kind == _LENGTH:
                    length, at = _varint(data, at)
                    field = message.fields_by_number.get(tag >> 3)
                    if field is not None and field.message_type is not None:
                        waiting.append((at, min(at + length, end), field.message_type, depth + 1))
                    elif field is not None and field.type == FieldDescriptor.TYPE_STRING:
                        _mend(mended, at, min(at + length, end))
                    at += length
                elif kind == _VARINT:
                    _, at = _varint(data, at)
                else:
                    at += {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
    except IndexError:  # cut off
        pass
    return bytes(mended)


def _is_valid(data: bytes, descriptor: Any) -> bool:
    try:
        GetMessageClass(descriptor).FromString(data)
    except DecodeError:
        return False
    return True


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at at, and where it ends. Raises IndexError."""
    value = 0
    for shift in range(0, _MAX_SHIFT, 7):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise IndexError  # longer than any number


def _mend(data: bytearray, at: int, end: int) -> None:
    for _ in range(_MOST_FAULTS):
        try:
            data[at:end].decode()
        except UnicodeDecodeError as error:
            data[at + error.start : at + error.end] = b"?" * (error.end - error.start)
        else:
            return
    data[at:end] = data[at:end].decode("ascii", "replace").replace("\ufffd", "?").encode()


def read_what_can_be(document: Any, message: Any, levels: int = 2) -> tuple[int, int]:
    """Reads an export in JSON into a message that is empty. How many spans or log records it read, and how many not.

    A resource or a scope that is none counts as one of them. Of what is around spans, only what cannot be read goes.

    Args:
        document: the export, a resource or a scope.
        message: what it is to be.
        levels: how many there are between its list and spans.
    """
    if not isinstance(document, dict):
        return 0, 1
    kept = lost = 0
    parts = next(field for field in message.DESCRIPTOR.fields if field.is_repeated)
    into = getattr(message, parts.name)
    for name, value in document.items():
        if name not in (parts.json_name, parts.name):
            _read_around(name, value, message)
            continue
        for each in value if isinstance(value, list) else () if value is None else (value,):
            part = into.add()
            if levels and isinstance(value, list):
                more = read_what_can_be(each, part, levels - 1)
            else:
                more = (1, 0) if isinstance(value, list) and _read_item(each, part) else (0, 1)
            if more == (0, 1):
                del into[-1]
            kept, lost = kept + more[0], lost + more[1]
    return kept, lost


def _read_around(name: str, value: Any, message: Message) -> None:
    """Reads a resource or a scope, or what else is beside a list, as far as it can be read."""
    part = type(message)()
    if not _read({name: value}, part) and isinstance(value, dict):
        _keep_readable_attributes(value)
        for each in value:
            one = type(message)()
            if _read({name: {each: value[each]}}, one):
                part.MergeFrom(one)
    message.MergeFrom(part)


def _read_item(item: Any, message: Message) -> bool:
    """Reads a span or a log record, without the attributes that cannot be. Whether it could."""
    if _read(item, message):
        return True
    if isinstance(item, dict):
        _keep_readable_attributes(item, *_parts(item, "events"), *_parts(item, "links"))
    return _read(item, message)


def _keep_readable_attributes(*parts: Any) -> None:
    """Takes out of the attributes of parts what is none."""
    for part in parts:
        if isinstance(part, dict) and isinstance(part.get("attributes"), list):
            part["attributes"] = [each for each in part["attributes"] if _read(each, KeyValue())]


def _parts(item: dict[str, Any], name: str) -> Iterable[Any]:
    return item[name] if isinstance(item.get(name), list) else ()


def _read(document: Any, message: Message) -> bool:
    """Reads a document into a message. Whether it could; the message is empty else."""
    try:
        ParseDict(document, message, ignore_unknown_fields=True)
    except REFUSED:
        message.Clear()
        return False
    return isinstance(document, dict)
