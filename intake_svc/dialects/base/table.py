"""Tables: which attributes of a producer have which field. What a table does not name is not read."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from recording.show import Show
from service_kit.bounds import MAX_COUNT

Names = tuple[str, ...]
"""Attributes that may have a field, the preferred one first."""

REPOSITORY: Names = (
    "vcs.repository.url.full",
    "github.copilot.git.repository",
    "copilot_chat.repo.remote_url",
    "vcs.repository.name",
)
BRANCH: Names = (
    "vcs.ref.head.name",
    "github.copilot.git.branch",
    "copilot_chat.repo.head_branch_name",
    "vcs.repository.ref.name",
)
"""By OpenTelemetry's conventions for version control (https://opentelemetry.io/docs/specs/semconv/registry/attributes/vcs/)
and Copilot's own names, of a resource or of what it has sent. All dialects read them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # known by itself: to hash its fields takes 2 us
class Table:
    """The attributes of one producer's spans or log records, by what they say."""

    kind: Names = ()
    """What the span or the record is of."""
    time: Names = ()
    """When it happened, as ISO 8601; a record without one has its own time."""
    duration_ms: Names = ()
    session: Names = ()
    turn: Names = ()
    subagent: Names = ()
    """The sub-agent that acted."""
    parent: Names = ()
    """The agent that began the sub-agent."""
    sequence: Names = ()
    """The producer's own count of its events."""
    counted_by: Names = ()
    """Who counts, where the count goes on from one session to the next."""

    tool: Names = ()
    call_id: Names = ()
    arguments: Names = ()
    """The arguments as JSON."""
    argument: Names = ()
    """Single arguments, each an attribute of its own name."""
    mcp_server: Names = ()
    success: Names = ()
    """Whether the call or the request succeeded: true or false."""
    status: Names = ()
    """How it ended, as one of the producer's words."""
    error_type: Names = ()
    """The type of an error; never its message."""
    error: Names = ()
    """An error's message, of which nothing is read but that it is there."""
    exit_code: Names = ()
    result_bytes: Names = ()
    result: Names = ()
    """What the call returned, of which nothing is read but that it is there: without it, how it ended is not told."""
    truncated: Names = ()
    decision: Names = ()
    decided_by: Names = ()
    """What decided: the producer's word."""
    interactive: Names = ()
    """Whether there was anybody to ask."""

    model: Names = ()
    requested_model: Names = ()
    provider: Names = ()
    input_tokens: Names = ()
    output_tokens: Names = ()
    cached_tokens: Names = ()
    cache_write_tokens: Names = ()
    reasoning_tokens: Names = ()
    tool_tokens: Names = ()
    """Tokens of what tools returned, where they are not among input_tokens."""
    total_tokens: Names = ()
    cost_micros: Names = ()
    """The price in millionths of a US dollar, by the producer's own account."""
    cost_usd: Names = ()
    """The same in US dollars."""
    http_status: Names = ()

    repository: Names = REPOSITORY
    branch: Names = BRANCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one producer speaks."""

    engine: str
    """The name of the dialect, which its rows have as their engine."""
    agent: str
    """The agent's name where the resource has none that can be shown."""
    tools: Mapping[str, Mapping[str, Show]] = field(default_factory=dict)
    """How the arguments of its own tools are shown; of all others, names, types and sizes."""
    provider: str | None = None
    """Whose prices its models have, where it does not say."""
    input_excludes_cache: bool = False
    """Whether its input tokens are without those that a cache was read for or written with."""
    output_excludes_reasoning: bool = False
    """Whether its output tokens are without those of reasoning, where no total says."""
    refusals: frozenset[str] = frozenset()
    """The types of errors by which it tells of a call that it refused, so that it never ran."""
    version_is_the_agents: bool = True
    """Whether service.version is the agent's version."""


@lru_cache(maxsize=64)
def named(table: Table) -> frozenset[str]:
    """All attributes that a table names."""
    return frozenset(name for each in fields(table) for name in getattr(table, each.name))


@lru_cache(maxsize=64)
def wanted(table: Table) -> tuple[frozenset[str], frozenset[str]]:
    """The same; and those of them that may be long, and are seldom asked for."""
    return named(table), frozenset(table.arguments + table.argument + table.result + table.error)


Value = str | int | float | bool | bytes | AnyValue | None
"""The value of an attribute. AnyValue is one of several values, or one that is not read yet."""


class Attributes:
    """The attributes of a span, a record or an event that a table names. The values of others are not touched."""

    __slots__ = ("_values",)

    def __init__(self, items: Iterable[KeyValue], names: frozenset[str], late: frozenset[str] = frozenset()) -> None:
        """late: the names of values that are read when they are asked for, and not before."""
        values: dict[str, Value] = {}
        for item in items:
            if (key := item.key) in names:
                value = item.value
                # Most are texts. A message that is kept costs more than what it holds.
                values[key] = value if key in late else value.string_value or _read(value)
        self._values = values

    def have(self, names: Iterable[str]) -> bool:
        """Whether there is any of them."""
        return not self._values.keys().isdisjoint(names)

    def add(self, names: Names, text: str) -> None:
        """A text for the first of the names, where there is none of them."""
        if names and not self.have(names):
            self._values[names[0]] = text

    def drop(self, names: Names) -> None:
        """Takes away what has any of the names."""
        for name in names:
            self._values.pop(name, None)

    def text(self, names: Names) -> str:
        """The first text that is not empty; empty where there is none."""
        for name in names:
            if value := self._values.get(name):
                if type(value) is str:
                    return value
                if type(value) is AnyValue and (text := value.string_value):
                    return text
        return ""

    def word(self, names: Names) -> str:
        """The same in lower case, to be compared with words of the producer's."""
        return self.text(names).lower()

    def number(self, names: Names) -> int | None:
        """The first whole number from 0 to MAX_COUNT, also where it comes as a fraction or as text."""
        for name in names:
            value = self._values.get(name)
            if type(value) is int and 0 <= value <= MAX_COUNT:
                return value
            if value is not None and (found := _number(value)) is not None:
                return int(found)
        return None

    def amount(self, names: Names) -> float | int | None:
        """The first number from 0 to MAX_COUNT."""
        for name in names:
            value = self._values.get(name)
            if value is not None and (found := _number(value)) is not None:
                return found
        return None

    def signed(self, names: Names) -> int | None:
        """The first whole number, which may be less than 0, as far as -MAX_COUNT."""
        for name in names:
            if type(value := self._value(name)) is int and -MAX_COUNT <= value <= MAX_COUNT:
                return value
        return self.number(names)

    def flag(self, names: Names) -> bool | None:
        """The first that is true or false, also as text."""
        for name in names:
            value = self._value(name)
            if type(value) is bool:
                return value
            if type(value) is str and (word := value.lower()) in ("true", "false"):
                return word == "true"
        return None

    def json(self, names: Names) -> str | None:
        """The first value as JSON; a text is taken as it is. None where there is none."""
        for name in names:
            if (value := self._value(name)) is not None:
                return value if type(value) is str else json.dumps(_plain(value))
        return None

    def together(self, names: Names) -> str | None:
        """The values of several attributes as one JSON object, by their names. None where there is none."""
        found = {name: _plain(self._value(name)) for name in names if name in self._values}
        return json.dumps(found) if found else None

    def _value(self, name: str) -> Value:
        value = self._values.get(name)
        return _read(value) if type(value) is AnyValue else value


_DIGITS = re.compile(r"([0-9]{1,18})(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)
"""A number as JavaScript and Python write it: 0.0043200000000000005 has more digits than it needs, 1e-7 has none."""


def _number(value: Value) -> float | int | None:
    """The number that a value is; None where it is none, or one that no count can be."""
    if type(value) is AnyValue:
        value = _read(value)
    if type(value) is str and (found := _DIGITS.fullmatch(value)):
        value = int(value) if found[1] == value else float(value)
    if type(value) is int or type(value) is float:
        return value if 0 <= value <= MAX_COUNT else None
    return None


def _read(value: AnyValue) -> Value:
    """What a value holds; itself where that is several."""
    if number := value.int_value:
        return number
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    return value if kind in ("array_value", "kvlist_value") else getattr(value, kind)


def _plain(value: Value) -> Any:
    """A value as JSON has it. Bytes become their number, since they are never shown."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if type(value) is bytes:
        return len(value)
    if type(value) is not AnyValue:
        return value
    if value.HasField("kvlist_value"):
        return {each.key: _plain(_read(each.value)) for each in value.kvlist_value.values}
    return [_plain(_read(each)) for each in value.array_value.values]
