"""What each version of the rows has: `python -m tests.protos.fingerprint` writes the file of the current one."""

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from onrecord.audit.v1 import audit_pb2

from recording.row_version import ROW_VERSION

FOLDER = Path(__file__).parent / "row_versions"
_TYPES = {
    value: name.removeprefix("TYPE_").lower()
    for name, value in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


def describe() -> str:
    """RecordRequest and all that it contains, a line for each field and enum value."""
    return "".join(f"{line}\n" for line in sorted(_lines(audit_pb2.RecordRequest.DESCRIPTOR, set())))


def _lines(message: Descriptor, seen: set[str]) -> Iterator[str]:
    seen.add(message.full_name)
    for field in message.fields:
        kind: Descriptor | EnumDescriptor | None = field.message_type or field.enum_type
        repeated = "repeated " if field.is_repeated else "optional " if field.has_presence else ""
        name = kind.full_name if kind else _TYPES[field.type]
        yield f"{message.full_name} {field.number:03d} {field.name}: {repeated}{name}"
        if field.message_type and field.message_type.full_name not in seen:
            yield from _lines(field.message_type, seen)
        elif field.enum_type and field.enum_type.full_name not in seen:
            seen.add(field.enum_type.full_name)
            for value in field.enum_type.values:
                yield f"{field.enum_type.full_name} {value.number:03d} {value.name}"


def file_of(version: int) -> Path:
    """The file of a version."""
    return FOLDER / f"{version}.txt"


if __name__ == "__main__":
    file_of(ROW_VERSION).write_text(describe())
