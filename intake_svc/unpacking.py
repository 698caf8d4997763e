"""From the bytes of a request to its message, by what it becomes: bytes after unpacking, values, parts."""

import base64
import binascii
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from intake_svc.errors import TooLarge, Unsupported
from intake_svc.lenient_json import load_json, mend_characters
from intake_svc.salvage import NOT_READ, REFUSED, read_what_can_be, with_valid_texts
from intake_svc.signals import Signal
from service_kit.access.request_parts import check_parts, count_all_parts
from service_kit.bounds import Exceeded, check_json
from service_kit.errors import InvalidRequest

MAX_PARTS = 1_000_000
"""Of one request in protobuf. A span has about a hundred, and exporters send 512 at once by default."""

_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""What zlib is told of the format, by the name in Content-Encoding. RFC 9110 has x-gzip as another name of gzip."""
_IDS = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")
_ITEMS: tuple[tuple[tuple[str, str], tuple[str, str], tuple[str, ...]], ...] = (
    (("resourceSpans", "resource_spans"), ("scopeSpans", "scope_spans"), ("spans",)),
    (("resourceLogs", "resource_logs"), ("scopeLogs", "scope_logs"), ("logRecords", "log_records")),
)
_STATUSES = {name.removeprefix("STATUS_CODE_"): number for name, number in Status.StatusCode.items()}
_NO_STATUS = max(_STATUSES.values()) + 1
"""What stands for a word that is no status: protobuf's parser would take it for none, which is no error."""
NO_HEXADECIMAL = "an id is not hexadecimal, as OTLP's JSON has them"


class Unpacked(NamedTuple):
    """What a request is."""

    message: Message
    spoiled: tuple[str, ...] = ()
    """Why spans or log records of it could not be read: one sentence each, of our own words."""


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


def parse_protobuf(signal: Signal, data: bytes) -> Unpacked:
    """The message of an export in protobuf. A text that is no UTF-8 is taken with `?` for what is not.

    Raises:
        TooLarge: it has more than MAX_PARTS parts.
        InvalidRequest: it has more resources than a request of ours may have parts.
        DecodeError: it is none.
    """
    descriptor = signal.request.DESCRIPTOR
    check_parts(data, descriptor, sys.maxsize)  # a resource may have thousands of spans
    # each part takes a byte at least
    if len(data) > MAX_PARTS and count_all_parts(data, descriptor, MAX_PARTS) > MAX_PARTS:
        raise TooLarge(f"the request has more than {MAX_PARTS:,} parts: send it in several")
    try:
        return Unpacked(signal.request.FromString(data))
    except DecodeError:
        return Unpacked(signal.request.FromString(with_valid_texts(data, descriptor)))


def parse_json(signal: Signal, data: bytes) -> Unpacked:
    """The message of an export in OTLP's JSON: ids are hexadecimal there, and what is not known is passed over.

    Resources, scopes, spans and log records that cannot be read are left out, and told. Attributes are left out, and
    what else is beside or around spans, if the rest can be read.

    Raises:
        TooLarge: it has more values than bounds.JSON_VALUES.
        InvalidRequest: the ids of all its spans and log records are not hexadecimal.
        DecodeError: it is none, or nothing of it can be read.
    """
    try:
        check_json(data)
    except Exceeded as exceeded:
        raise TooLarge(f"the request has {exceeded}: send it in several, or in protobuf") from None
    try:
        document = load_json(data)
        if not _is_export(document, signal):
            raise ValueError  # an export of another signal, sent to this one's path, would be lost in silence
        spoiled = [NO_HEXADECIMAL] * _prepare(document)
        if spoiled and not any(_lists(document)):
            raise InvalidRequest(NO_HEXADECIMAL, "")
        message = signal.request()
        try:
            ParseDict(document, message, ignore_unknown_fields=True)
        except REFUSED:
            message.Clear()
            mend_characters(document)
            kept, lost = read_what_can_be(document, message)
            spoiled += [NOT_READ] * lost
            if spoiled and not kept:
                raise
        return Unpacked(message, tuple(spoiled))
    except InvalidRequest:
        raise
    except REFUSED:
        raise DecodeError from None  # the parsers' own words quote what was sent


def _is_export(document: Any, signal: Signal) -> bool:
    """Whether it is an object that has this signal's resources, or nothing."""
    names = {signal.resources, signal.request.DESCRIPTOR.fields_by_name[signal.resources].json_name}
    return isinstance(document, dict) and (not document or bool(names & document.keys()))


def _lists(document: Any) -> Iterator[list[Any]]:
    """The lists of spans and of log records in an export."""
    for resources, scopes, names in _ITEMS:
        for resource in _each(document, *resources):
            for scope in _each(resource, *scopes):
                yield from (scope[name] for name in names if isinstance(scope.get(name), list))


def _prepare(document: Any) -> int:
    """Writes spans and log records as protobuf's JSON has them, and takes out those whose ids cannot be. How many."""
    taken = 0
    for items in _lists(document):
        kept = [item for item in items if not isinstance(item, dict) or _prepare_item(item)]
        taken += len(items) - len(kept)
        items[:] = kept
    return taken


def _prepare_item(item: dict[str, Any]) -> bool:
    """Writes ids in base64, and the name of a status as its number. Whether the ids are hexadecimal."""
    status = item.get("status")
    if isinstance(status, dict) and isinstance(word := status.get("code"), str) and not word.isdecimal():
        status["code"] = _STATUSES.get(word.upper().removeprefix("STATUS_CODE_"), _NO_STATUS)
    for part in (item, *_each(item, "links")):
        for name in _IDS:
            if isinstance(text := part.get(name), str):
                try:
                    part[name] = base64.b64encode(binascii.unhexlify(text)).decode()
                except ValueError:
                    return False
    return True


def _each(part: Any, *names: str) -> Iterable[dict[str, Any]]:
    found = [part[name] for name in names if isinstance(part.get(name), list)]
    return [one for some in found for one in some if isinstance(one, dict)]
