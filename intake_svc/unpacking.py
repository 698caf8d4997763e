"""From the bytes of a request to its message, by what it becomes: bytes after unpacking, values, parts."""

import base64
import binascii
import json
import sys
import zlib
from collections.abc import Iterable
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError, Message

from intake_svc.errors import TooLarge, Unsupported
from intake_svc.signals import Signal
from service_kit.access.request_parts import check_parts, count_all_parts
from service_kit.bounds import Exceeded, check_json
from service_kit.errors import InvalidRequest

MAX_PARTS = 1_000_000
"""Of one request in protobuf. A span has about a hundred, and exporters send 512 at once by default."""

_WINDOW = {"gzip": 31, "deflate": 15}
"""What zlib is told of the format, by the name in Content-Encoding."""
_IDS = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")


def unpack(data: bytes, encoding: str, most: int) -> bytes:
    """The bytes of a body that came with a Content-Encoding, at most `most` of them.

    Raises:
        Unsupported: the encoding is another than gzip, deflate and identity.
        TooLarge: it becomes more.
        InvalidRequest: it is not what its encoding says, or not whole.
    """
    if encoding in ("", "identity"):
        return data
    if encoding not in _WINDOW:
        raise Unsupported("Content-Encoding must be gzip, deflate or identity")
    unpacker = zlib.decompressobj(_WINDOW[encoding])
    try:
        unpacked = unpacker.decompress(data, most + 1)
    except zlib.error:
        raise InvalidRequest(f"the body is no {encoding}", "") from None
    if len(unpacked) > most:
        raise TooLarge(f"the body unpacks to more than {most:,} bytes: send it in several requests")
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidRequest(f"the body is not one whole piece of {encoding}", "")
    return unpacked


def parse_protobuf(signal: Signal, data: bytes) -> Message:
    """The message of an export in protobuf.

    Raises:
        TooLarge: it has more than MAX_PARTS parts.
        InvalidRequest: it has more resources than a request of ours may have parts.
        DecodeError: it is none.
    """
    check_parts(data, signal.request.DESCRIPTOR, sys.maxsize)  # a resource may have thousands of spans
    # each part takes a byte at least
    if len(data) > MAX_PARTS and count_all_parts(data, signal.request.DESCRIPTOR, MAX_PARTS) > MAX_PARTS:
        raise TooLarge(f"the request has more than {MAX_PARTS:,} parts: send it in several")
    return signal.request.FromString(data)


def parse_json(signal: Signal, data: bytes) -> Message:
    """The message of an export in OTLP's JSON: ids are hexadecimal there, and what is not known is passed over.

    Raises:
        TooLarge: it has more values than bounds.JSON_VALUES.
        InvalidRequest: its ids are not hexadecimal.
        DecodeError: it is none.
    """
    try:
        check_json(data)
    except Exceeded as exceeded:
        raise TooLarge(f"the request has {exceeded}: send it in several, or in protobuf") from None
    message = signal.request()
    try:
        document = json.loads(data)
        if not _is_export(document, signal):
            raise ValueError  # an export of another signal, sent to this one's path, would be lost in silence
        _decode_ids(document)
        ParseDict(document, message, ignore_unknown_fields=True)
    except (ValueError, RecursionError, ParseError, AttributeError, TypeError):
        raise DecodeError from None  # the parsers' own words quote what was sent
    return message


def _is_export(document: Any, signal: Signal) -> bool:
    """Whether it is an object that has this signal's resources, or nothing."""
    names = {signal.resources, signal.request.DESCRIPTOR.fields_by_name[signal.resources].json_name}
    return isinstance(document, dict) and (not document or bool(names & document.keys()))


def _decode_ids(document: Any) -> None:
    """Writes the ids of an export as protobuf's JSON has bytes, in base64."""
    for resource in _each(document, "resourceSpans", "resource_spans"):
        for scope in _each(resource, "scopeSpans", "scope_spans"):
            for span in _each(scope, "spans"):
                _decode_ids_of(span)
                for link in _each(span, "links"):
                    _decode_ids_of(link)
    for resource in _each(document, "resourceLogs", "resource_logs"):
        for scope in _each(resource, "scopeLogs", "scope_logs"):
            for record in _each(scope, "logRecords", "log_records"):
                _decode_ids_of(record)


def _decode_ids_of(part: dict[str, Any]) -> None:
    for name in _IDS:
        if isinstance(text := part.get(name), str):
            try:
                part[name] = base64.b64encode(binascii.unhexlify(text)).decode()
            except ValueError:
                raise InvalidRequest("an id is not hexadecimal, as OTLP's JSON has them", name) from None


def _each(part: Any, *names: str) -> Iterable[dict[str, Any]]:
    found = next((part[name] for name in names if name in part), ())
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else ()
