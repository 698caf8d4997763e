"""Rows as plain values: what --json, CSV and Parquet hold, and what a terminal may be shown."""

import sys
from datetime import UTC, datetime
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from service_kit.printable import json_text

RECEIPT = "receipt"
"""The second field of all records."""


def to_dict(message: Message) -> dict[str, Any]:
    """The fields of message by their names: numbers as numbers, enums by the end of their names in lower case, null for
    what is not set, times as they are on the wire. Of a record, the producer's row with the receipt's fields beside.
    """
    if RECEIPT not in message.DESCRIPTOR.fields_by_name:
        return {field.name: _value(message, field) for field in message.DESCRIPTOR.fields}
    row, receipt = (getattr(message, field.name) for field in message.DESCRIPTOR.fields)
    return to_dict(row) | {name: value or None for name, value in to_dict(receipt).items()}


def flat_fields(descriptor: Any) -> dict[str, Any]:
    """The fields of a row by the names of their columns in a table: those of a message in it as agent_name, a map as
    one text.
    """
    return {
        f"{field.name}_{part.name}" if _is_message(field) else field.name: part
        for field in descriptor.fields
        for part in (field.message_type.fields if _is_message(field) else [field])
    }


def to_flat_dict(record: Message) -> dict[str, Any]:
    """A record as to_dict() has it, with the names of flat_fields(): a message that is not set has none of its own, and
    a map is a JSON object.
    """
    row: Any = record.DESCRIPTOR.fields[0].message_type
    fields = row.fields_by_name
    flat: dict[str, Any] = {}
    for name, value in to_dict(record).items():
        if not isinstance(value, dict):
            flat[name] = value
        elif _is_message(fields[name]):
            flat |= {f"{name}_{part}": inner for part, inner in value.items()}
        else:
            flat[name] = json_text(dict(sorted(value.items())), ascii_only=False)
    return flat


def print_json(message: Message) -> None:
    """One JSON object on a line of its own."""
    sys.stdout.write(json_line(to_dict(message)))


def json_line(value: Any) -> str:
    """A value as one line of JSON, with control characters escaped for terminals and other programs."""
    return json_text(value, ascii_only=sys.stdout.encoding.lower() != "utf-8") + "\n"


def enum_name(field: Any, number: int) -> str:
    """The end of the name of an enum's value, in lower case; empty when it is not set, a number when unknown."""
    names = {value.number: str(value.name) for value in field.enum_type.values}
    prefix = names[0].removesuffix("UNSPECIFIED")
    return names.get(number, str(number)).removeprefix(prefix).lower() if number else ""


def time_text(ms: int) -> str:
    """A time in milliseconds since 1970-01-01 as people read it, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def money(micros: int) -> str:
    """Millionths of a US dollar as dollars."""
    return f"${micros / 1_000_000:,.6f}"


def _is_message(field: Any) -> bool:
    return field.message_type is not None and not field.message_type.GetOptions().map_entry


def _value(message: Message, field: Any) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return [to_dict(part) for part in value] if field.is_repeated else to_dict(value)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return [enum_name(field, part) for part in value] if field.is_repeated else enum_name(field, value) or None
    if field.type == FieldDescriptor.TYPE_BYTES:
        return value.hex()
    return list(value) if field.is_repeated else value
