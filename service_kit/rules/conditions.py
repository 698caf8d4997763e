"""Conditions in CEL: compiled once, evaluated for each call. Loads the library, which not every installation has."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from cel_expr_python import cel

from service_kit.rules.facts import Facts, Reads, Unevaluable
from service_kit.rules.inspection import Refused, inspect

MAX_CONDITION_CHARACTERS = 2000
MAX_COMPLAINT_CHARACTERS = 200

_TEXTS = cel.Type.Map(cel.Type.STRING, cel.Type.STRING)
_VARIABLES = {
    "tool": cel.Type.STRING,
    "args": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    "principal": cel.Type.STRING,
    "labels": _TEXTS,
    "agent": _TEXTS,
    "engine": cel.Type.STRING,
    "model": cel.Type.STRING,
    "session": cel.Type.STRING,
}
"""The fields of Facts."""
_ENVIRONMENT = cel.NewEnv(variables=_VARIABLES)
_MATCHES = _ENVIRONMENT.compile("tool.matches(model)")
_NO_SUCH_KEY = "NOT_FOUND"
_CONTAINER = " (in container '')"


class WrongCondition(ValueError):
    """A condition cannot be used; the message says why, and where in it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition, compiled."""

    text: str
    program: Any
    reads: Reads

    def holds(self, facts: Facts) -> bool:
        """Whether it holds for a call.

        Raises:
            Unevaluable: it cannot be said.
        """
        value = _evaluate(self.program, facts.variables(self.reads))
        if isinstance(value, bool):
            return value
        if str(value).startswith(_NO_SUCH_KEY):
            raise Unevaluable("it reads an argument or a label that this call does not have: test with has() first")
        raise Unevaluable("its condition does not fit the values of this call")


def compile_condition(text: str) -> Condition:
    """Compiles and inspects a condition.

    Raises:
        WrongCondition: it is no CEL, gives no yes or no, or goes beyond the bounds.
    """
    if len(text) > MAX_CONDITION_CHARACTERS:
        raise WrongCondition(f"is longer than {MAX_CONDITION_CHARACTERS:,} characters: make several rules of it")
    try:
        text.encode()
        program = _ENVIRONMENT.compile(text)
    except (RuntimeError, UnicodeEncodeError) as error:
        raise WrongCondition(_told(str(error))) from None
    if program.return_type() != cel.Type.BOOL:
        raise WrongCondition("must be true or false: compare a value, as in `args.force == true`")
    try:
        found = inspect(program.serialize())
    except Refused as error:
        raise WrongCondition(str(error)) from None
    for pattern in found.patterns:
        if not isinstance(_evaluate(_MATCHES, {"tool": "", "model": pattern}), bool):
            raise WrongCondition(f"{pattern[:80]!r} is not a regular expression of RE2")
    arguments = None if found.reads_all else frozenset(found.arguments)
    return Condition(text, program, Reads(frozenset(_VARIABLES.keys() & found.names), arguments))


_FAILURES = (RuntimeError, ValueError, TypeError, OverflowError)
"""What the library raises of values that it cannot take, besides returning errors."""


class FirstOf:
    """Several conditions as one program, which takes a third of the time that they take one by one."""

    def __init__(self, conditions: Sequence[Condition]) -> None:
        """What they read of a call is bounded together, so that find() may not know what each alone would."""
        self._reads = reduce(or_, (condition.reads for condition in conditions))
        self._programs = _chained(conditions, 0)
        self._count = len(conditions)

    def find(self, facts: Facts) -> int | None:
        """The place of the first condition that holds, or the number of conditions if none does.

        None where one cannot be evaluated, at least not together with the others: ask them one by one.
        """
        try:
            variables = facts.variables(self._reads)
            for program in self._programs:  # most tools have one, and an activation to share costs more than it saves
                place = program.eval(data=variables).value()
                if type(place) is not int:
                    return None
                if place >= 0:
                    return place
        except (Unevaluable, *_FAILURES):
            return None
        return self._count


def _chained(conditions: Sequence[Condition], first: int) -> list[Any]:
    """Programs that give the place of the first condition that holds, or -1.

    The library bounds how deep an expression may be, so that many become several programs.
    """
    parts = [f"(\n{condition.text}\n) ? {place} :\n" for place, condition in enumerate(conditions, first)]
    try:
        return [_ENVIRONMENT.compile("".join([*parts, "-1"]))]
    except RuntimeError:
        middle = len(conditions) // 2
        return _chained(conditions[:middle], first) + _chained(conditions[middle:], first + middle)


def _evaluate(program: Any, variables: Mapping[str, Any]) -> Any:
    """The value, or the library's words on why there is none."""
    try:
        return program.eval(data=variables).value()
    except _FAILURES as error:
        return str(error)


def _told(words: str) -> str:
    """The first of the library's complaints, with its place, without the quoted source."""
    if found := re.search(r"<input>:(\d+):(\d+): ([^\n]*)", words):
        line, column, complaint = found.groups()
        complaint = complaint.replace(_CONTAINER, "").partition(" expecting")[0]
        return f"{complaint[:MAX_COMPLAINT_CHARACTERS]} (line {line}, column {column} of the condition)"
    if "limit" in words or "recursion" in words:
        return "is too deep or too long: make several rules of it"
    return "is not CEL"
