"""Columns: convert fields between messages and tables, and check their values.

Columns work on all values of a batch at once, since nearly all batches are valid, and Python checks a column of 500
values about as fast as three single ones. Only if holds() fails does problem() check each row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from google.protobuf.message import Message
from onrecord.audit.v1 import audit_pb2

from recording.controls import has_control

MAX_INT64 = 2**63 - 1
MIN_TIME_MS = 946_684_800_000
MAX_TIME_MS = 253_402_300_799_999
"""The end of the year 9999, the latest time that most libraries can represent."""

MAX_LABELS = 32
"""Of a session."""

UNKNOWN = "unknown"
"""The stored value for a row without a scope."""


class Problem(NamedTuple):
    """Why a value cannot be stored, in a sentence that quotes no value."""

    code: audit_pb2.RejectionCode.ValueType
    message: str
    field: str = ""
    """The field of the wire that is at fault; empty when it is the row as a whole."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Column:
    """One column of a table. The message's field has the same name by default."""

    name: str
    field: str = ""
    """A path where the field is in a message of the row, such as usage.requests."""
    optional: bool = False
    """Null in the table if the field is not set."""
    zero_is_null: bool = False
    """Null in the table if the field is not set, 0 or empty, which mean the same."""

    @property
    def wire_name(self) -> str:
        """The field's name, or its path."""
        return self.field or self.name

    def store(self, values: Sequence[Any], messages: Sequence[Message]) -> Sequence[Any]:
        """The table's values for the messages' fields."""
        if self.zero_is_null:
            return [value or None for value in values]
        if not self.optional:
            return values
        name = self.wire_name
        return [
            value if value or message.HasField(name) else None for value, message in zip(values, messages, strict=True)
        ]

    def present(self, values: Sequence[Any]) -> Sequence[Any]:
        """The values that are not null."""
        return [value for value in values if value is not None] if self.optional or self.zero_is_null else values

    def loader(self) -> Callable[[Any], Any] | None:
        """Converts a value of the table that is not null to the field's; None if they are the same."""
        return None

    def holds(self, values: Sequence[Any]) -> bool:
        """Whether all values of a column of the table can be stored."""
        return True

    def problem(self, value: Any) -> Problem | None:
        """Why a value cannot be stored; None if it can."""
        return None

    def _invalid(self, reason: str) -> Problem:
        return Problem(audit_pb2.REJECTION_CODE_INVALID, f"{self.wire_name} {reason}", self.wire_name)

    def _too_large(self, reason: str) -> Problem:
        return Problem(audit_pb2.REJECTION_CODE_TOO_LARGE, f"{self.wire_name} {reason}", self.wire_name)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Text(Column):
    """A text of at most limit characters, or bytes of UTF-8, and without control characters where it is a name."""

    limit: int = 0
    in_bytes: bool = False
    is_name: bool = True
    """False: a text, which may have line breaks and more, and no NUL."""
    required: bool = False
    default: str = ""
    """Stored in place of an empty text."""

    def store(self, values: Sequence[Any], messages: Sequence[Message]) -> Sequence[Any]:
        if self.default and "" in values:
            return [value or self.default for value in values]
        return Column.store(self, values, messages)

    def holds(self, values: Sequence[Any]) -> bool:
        texts = self.present(values)
        lengths = list(map(len, texts))
        together = "".join(texts)
        if has_control(together) if self.is_name else "\0" in together:
            return False
        # A character has at most 4 bytes, so few texts need to be encoded to check their size.
        if not lengths or max(lengths) <= (self.limit // 4 if self.in_bytes else self.limit):
            return not self.required or 0 not in lengths
        return all(self.problem(text) is None for text in texts)

    def problem(self, value: Any) -> Problem | None:
        if not value:
            return self._invalid("is empty") if self.required else None
        if has_control(value) if self.is_name else "\0" in value:
            return self._invalid("has a control character" if self.is_name else "has a NUL character")
        if len(value.encode() if self.in_bytes else value) <= self.limit:
            return None
        unit = "bytes" if self.in_bytes else "characters"
        return self._too_large(f"is longer than {self.limit} {unit}")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Number(Column):
    """An integer of at least minimum that SQLite can hold."""

    minimum: int = 0

    def holds(self, values: Sequence[Any]) -> bool:
        numbers = self.present(values)
        return not numbers or bool(min(numbers) >= self.minimum and max(numbers) <= MAX_INT64)

    def problem(self, value: Any) -> Problem | None:
        if value is None or self.minimum <= value <= MAX_INT64:
            return None
        return self._invalid(f"is not in {self.minimum} to {MAX_INT64}")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Time(Column):
    """A time in milliseconds since 1970-01-01 UTC. Its bounds are fixed: no clock refuses a row."""

    def holds(self, values: Sequence[Any]) -> bool:
        return bool(min(values) >= MIN_TIME_MS and max(values) <= MAX_TIME_MS)

    def problem(self, value: Any) -> Problem | None:
        if value < MIN_TIME_MS:
            return self._invalid("is before the year 2000")
        if value > MAX_TIME_MS:
            return self._invalid("is after the year 9999")
        return None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Flag(Column):
    """True or false, 1 or 0 in the table."""

    def loader(self) -> Callable[[Any], Any]:
        return bool


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Choice(Column):
    """An enum, stored as the lower-case end of its value's name.

    Null in the table where it is not set, which rows may be unless it is required; of a required one, a row of a ledger
    that took rows without it.
    """

    names: Mapping[int, str | None] | None = None
    required: bool = True
    required_with: str = ""
    """A number of the message: where it is not 0, the enum must be set too."""

    def store(self, values: Sequence[Any], messages: Sequence[Message]) -> Sequence[Any]:
        names = self.names or {}
        # A value from a later version of the proto stays a number, which problem() rejects, and a missing one 0.
        stored = [names.get(value, value) for value in values]
        if not self.required_with or None not in stored:
            return stored
        return [
            0 if value is None and getattr(message, self.required_with) else value
            for value, message in zip(stored, messages, strict=True)
        ]

    def loader(self) -> Callable[[Any], Any]:
        return {name: number for number, name in (self.names or {}).items()}.__getitem__

    def holds(self, values: Sequence[Any]) -> bool:
        found = set(values)
        return not (self.required and None in found) and found <= set((self.names or {}).values())

    def problem(self, value: Any) -> Problem | None:
        if value is None or value == 0:
            return self._invalid("is not set") if self.required or value == 0 else None
        if value in (self.names or {}).values():
            return None
        return self._invalid("has a value that this ledger does not know")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Digest(Column):
    """Bytes of a size, in hexadecimal in the table; null where they are not set."""

    size: int = 32

    def store(self, values: Sequence[Any], messages: Sequence[Message]) -> Sequence[Any]:
        return [value.hex() or None for value in values]

    def loader(self) -> Callable[[Any], Any]:
        return bytes.fromhex

    def holds(self, values: Sequence[Any]) -> bool:
        return {len(value) for value in values if value is not None} <= {2 * self.size}

    def problem(self, value: Any) -> Problem | None:
        return (
            None if value is None or len(value) == 2 * self.size else self._invalid(f"does not have {self.size} bytes")
        )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Labels(Column):
    """A map of texts, which has a table of its own."""

    def store(self, values: Sequence[Any], messages: Sequence[Message]) -> Sequence[Any]:
        return [dict(value) for value in values]

    def holds(self, values: Sequence[Any]) -> bool:
        texts = (64, [*chain.from_iterable(values)]), (256, [*chain.from_iterable(map(dict.values, values))])
        return max(map(len, values), default=0) <= MAX_LABELS and all(
            max(map(len, some), default=0) <= limit and not has_control("".join(some)) for limit, some in texts
        )

    def problem(self, value: Any) -> Problem | None:
        if len(value) > MAX_LABELS:
            return self._too_large(f"has more than {MAX_LABELS} entries")
        for limit, part, texts in ((64, "key", value.keys()), (256, "value", value.values())):
            if any(len(text) > limit for text in texts):
                return self._too_large(f"has a {part} that is longer than {limit} characters")
            if any(map(has_control, texts)):
                return self._invalid(f"has a {part} with a control character")
        return None


def enum_names(prefix: str, values: Sequence[tuple[str, int]]) -> dict[int, str | None]:
    """The stored names of an enum's values: without the prefix, in lower case, null for 0."""
    return {number: name.removeprefix(prefix).lower() if number else None for name, number in values}
