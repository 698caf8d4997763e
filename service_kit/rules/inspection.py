"""What a compiled condition reads, and whether it stays within bounds. The library has no budget of its own but for
loops, so that whatever could grow or multiply is refused before it ever runs.

A condition is read as the message cel.expr.CheckedExpr that the library serialises
(https://github.com/google/cel-spec/tree/master/proto/cel/expr); the numbers below are those of its fields. What is not
understood is refused.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet

from service_kit.rules.patterns import MAX_PATTERN_COST, pattern_cost

ARGUMENTS = "args"
MAX_LOOP_CALLS = 10
"""Comparisons and functions within `all`, `exists` and `exists_one`, all together: each runs once an element."""

_REFERENCES, _EXPRESSION = 2, 4  # CheckedExpr
_CONSTANT, _IDENTIFIER, _SELECT, _CALL, _LIST, _STRUCT, _LOOP = 3, 4, 5, 6, 7, 8, 9  # Expr
_STRING = 6  # Constant
_ACCUMULATOR = "@result"
_LOGIC = frozenset({"_&&_", "_||_", "!_", "_?_:_", "@not_strictly_false"})
_IN_LOOPS = _LOGIC | {
    *("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in", "_[_]"),
    *("contains", "endsWith", "matches", "size", "startsWith"),
}
_SEARCHES = frozenset({"contains", "matches"})
"""What takes longer the longer a text is. Elements are bounded together; another text would be searched for each."""
_JOINING = frozenset({"add_string", "add_bytes", "add_list"})

_Message = dict[int, list[Any]]


class Refused(ValueError):
    """A condition goes beyond the bounds; the message says which and what to write."""


@dataclass(slots=True)
class Inspection:
    """What was found in a condition."""

    names: set[str] = field(default_factory=set)
    """The names that it reads: variables, also those of its loops."""
    arguments: set[str] = field(default_factory=set)
    """The names of the arguments that it reads."""
    reads_all: bool = False
    """Whether it reads the arguments as a whole, so that any may matter."""
    patterns: list[str] = field(default_factory=list)
    """Its regular expressions."""
    loop_calls: int = 0


def inspect(serialized: bytes) -> Inspection:
    """Walks a checked expression.

    Raises:
        Refused: it goes beyond the bounds.
    """
    packed = Packed.FromString(serialized)
    if not packed.type_url.endswith("/cel.expr.CheckedExpr"):
        raise Refused("cannot be read in the form that this version of the library gives")
    checked = _fields(packed.value)
    joining = {
        _one(entry, 1)
        for entry in map(_fields, checked[_REFERENCES])
        if _JOINING & {name.decode() for name in _fields(_one(entry, 2))[3]}
    }
    walk = _Walk(joining)
    walk.visit(_one(checked, _EXPRESSION), None)
    if sum(map(_cost, walk.found.patterns)) > MAX_PATTERN_COST:
        raise Refused("its patterns are too large once their repetitions are written out: repeat less")
    return walk.found


class _Walk:
    def __init__(self, joining: set[int]) -> None:
        self.found = Inspection()
        self._joining = joining

    def visit(self, data: bytes, element: str | None) -> None:
        """Looks at an expression and what it holds; element is the variable of the loop that it is in."""
        expression = _fields(data)
        if _CONSTANT in expression:
            return
        if _IDENTIFIER in expression:
            name = _name(data) or ""
            self.found.names.add(name)
            self.found.reads_all |= name == ARGUMENTS
        elif _SELECT in expression:
            select = _fields(_one(expression, _SELECT))
            self._visit_part(_one(select, 1), _text(select, 2), element)
        elif _CALL in expression:
            self._visit_call(_one(expression, 2), _fields(_one(expression, _CALL)), element)
        elif _LOOP in expression:
            self._visit_loop(_fields(_one(expression, _LOOP)), element)
        elif _LIST in expression:
            self._visit_all(_fields(_one(expression, _LIST))[1], element)
        elif _STRUCT in expression:
            for entry in map(_fields, _fields(_one(expression, _STRUCT))[2]):
                self._visit_all([*entry[3], *entry[4]], element)
        else:
            raise Refused("holds a kind of expression that is not known here")

    def _visit_all(self, expressions: Sequence[bytes], element: str | None) -> None:
        for expression in expressions:
            self.visit(expression, element)

    def _visit_part(self, whole: bytes, name: str | None, element: str | None) -> None:
        """Looks at the part of a map that has a name, if it is known."""
        if name is not None and _name(whole) == ARGUMENTS:
            self.found.names.add(ARGUMENTS)
            self.found.arguments.add(name)
        else:
            self.visit(whole, element)

    def _visit_call(self, number: int, call: _Message, element: str | None) -> None:
        function, targets, arguments = _text(call, 2), call[1], call[3]
        counts = _ACCUMULATOR in map(_name, arguments)
        if element is not None and not counts:
            self._count(function)
        if not counts and number in self._joining:
            raise Refused("`+` could join texts or lists, which makes them larger: compare the parts instead")
        if element is not None and function in _SEARCHES and not _reads((targets + arguments)[0], element):
            raise Refused(
                f"{function} within all, exists or exists_one must search the element: put it before the loop"
            )
        if function == "matches":
            self._take_pattern(arguments[-1])
        match function, arguments:
            case "_[_]", [whole, key] if _string(key) is not None:
                self._visit_part(whole, _string(key), element)
            case "@in", [key, whole] if _string(key) is not None:
                self._visit_part(whole, _string(key), element)
            case _:
                self._visit_all(targets + arguments, element)

    def _count(self, function: str) -> None:
        if function not in _IN_LOOPS:
            raise Refused(f"{function.strip('_')} cannot be used within all, exists or exists_one")
        self.found.loop_calls += function not in _LOGIC
        if self.found.loop_calls > MAX_LOOP_CALLS:
            raise Refused(f"there are more than {MAX_LOOP_CALLS} comparisons within all, exists or exists_one")

    def _take_pattern(self, pattern: bytes) -> None:
        if (written := _string(pattern)) is None:
            raise Refused("the pattern of matches must be written out as one text")
        self.found.patterns.append(written)

    def _visit_loop(self, loop: _Message, element: str | None) -> None:
        if element is not None:
            raise Refused("all, exists and exists_one cannot stand within one another")
        if _LIST in _fields(_one(loop, 4)):
            raise Refused("map and filter make lists: use all, exists or exists_one")
        self.visit(_one(loop, 2), None)
        self._visit_all(loop[5] + loop[6] + loop[7], _text(loop, 1))


def _cost(pattern: str) -> int:
    try:
        return pattern_cost(pattern)
    except ValueError as error:
        raise Refused(str(error)) from None


def _fields(data: bytes) -> _Message:
    """The fields of a message by their numbers."""
    message = Empty()
    message.ParseFromString(data)
    fields: _Message = defaultdict(list)
    for part in UnknownFieldSet(message):  # type: ignore[attr-defined] # it is a sequence
        fields[part.field_number].append(part.data)
    return fields


def _one(message: _Message, number: int) -> Any:
    """The field, or the empty value of a message."""
    return message[number][0] if message[number] else b""


def _text(message: _Message, number: int) -> str:
    return bytes(_one(message, number)).decode()


def _name(data: bytes) -> str | None:
    """The variable that an expression is, if it is one."""
    identifiers = _fields(data)[_IDENTIFIER]
    return _text(_fields(identifiers[0]), 1).removeprefix(".") if identifiers else None


def _string(data: bytes) -> str | None:
    """The text that an expression is, if it is a constant one."""
    constants = _fields(data)[_CONSTANT]
    strings = _fields(constants[0])[_STRING] if constants else []
    return bytes(strings[0]).decode() if strings else None


def _reads(data: bytes, name: str) -> bool:
    """Whether an expression reads a variable: what holds its name as an identifier does."""
    if _name(data) == name:
        return True
    expression = _fields(data)
    select, call = expression[_SELECT], expression[_CALL]
    parts = [_one(_fields(select[0]), 1)] if select else []
    if call:
        inner = _fields(call[0])
        parts += inner[1] + inner[3]
    return any(_reads(part, name) for part in parts)
