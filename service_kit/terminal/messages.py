"""Messages as JSON for programs: as the ledger's rows are, so that a reader needs one way to read both."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def set_fields(message: Message) -> dict[str, Any]:
    """The fields of message that are set, by their names: numbers as numbers, enums by the end of their names in lower
    case, bytes in hexadecimal digits, times as they are on the wire.
    """
    return {field.name: _value(field, value) for field, value in message.ListFields()}


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    return [_one(field, part) for part in value] if field.is_repeated else _one(field, value)


def _one(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return set_fields(value)
    if field.enum_type is not None:
        names = {each.number: str(each.name) for each in field.enum_type.values}
        return names.get(value, str(value)).removeprefix(names[0].removesuffix("UNSPECIFIED")).lower()
    return value.hex() if isinstance(value, bytes) else value
