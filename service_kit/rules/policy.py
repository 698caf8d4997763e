"""The rules of one file, and what they say of a call."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service_kit.access.roles import CallerName as Name
from service_kit.rules.conditions import Condition, FirstOf
from service_kit.rules.facts import Facts, Unevaluable

MAX_REASON_BYTES = 256
_MAX_TOOL_CHARACTERS = 128
_REMEMBERED_TOOLS = 256

Verdict = Literal["allow", "deny", "ask"]


def _check_reason(text: str) -> str:
    if not text.isprintable() or len(text.encode(errors="replace")) > MAX_REASON_BYTES:
        raise ValueError(f"must be one line of at most {MAX_REASON_BYTES} bytes")
    return text


class Rule(BaseModel):
    """One rule, as the file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name
    tools: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=_MAX_TOOL_CHARACTERS)]], Field(min_length=1, max_length=100)
    ] = ["*"]
    """Names of tools; `*`, `?` and `[…]` stand for what they stand for in names of files."""
    condition: str | None = None
    """In CEL; without one the rule holds for every call of its tools."""
    verdict: Verdict
    reason: Annotated[str, AfterValidator(_check_reason)] = ""
    """Why, for the model and the record."""

    def is_for(self, tool: str) -> bool:
        """Whether it is about a tool."""
        return any(fnmatchcase(tool, pattern) for pattern in self.tools)


@dataclass(frozen=True, slots=True)
class Matched:
    """What the rules say of a call."""

    verdict: Verdict
    rule: str
    """The name of the rule that decided."""
    reason: str
    """The rule's reason, or why its condition could not be evaluated. It quotes nothing of the call."""
    policy_digest: str
    """Of the rules that were in force."""


class Policy:
    """Rules in their order: the first that holds decides."""

    def __init__(self, rules: Sequence[tuple[Rule, Condition | None]], digest: str) -> None:
        """Takes each rule with its condition, compiled, and the digest of the file that has them."""
        self.digest = digest
        self.rules = tuple(rule for rule, _ in rules)
        self._rules = tuple(rules)
        self._for_tool = lru_cache(_REMEMBERED_TOOLS)(self._select)

    def decide(self, facts: Facts) -> Matched | None:
        """What the rules say of a call; None if none holds. A condition that cannot be evaluated denies it.

        Takes about 15 µs for ten conditions. A condition within the bounds takes at most about half a second, whatever
        it and the call are, and holds the interpreter meanwhile: docs/decisions/rules.md.
        """
        chosen = self._for_tool(facts.tool)
        if chosen.conditions is not None and (place := chosen.conditions.find(facts)) is not None:
            return None if place == len(chosen.rules) else self._matched(chosen.rules[place][0])
        for rule, condition in chosen.rules:
            try:
                if condition is None or condition.holds(facts):
                    return self._matched(rule)
            except Unevaluable as error:
                return Matched("deny", rule.name, f"The rule {rule.name} could not be applied: {error}.", self.digest)
        return None

    def about(self, tool: str) -> Sequence[tuple[Rule, Condition | None]]:
        """The rules that may decide on calls of a tool, with their conditions."""
        return self._for_tool(tool).rules

    def _matched(self, rule: Rule) -> Matched:
        return Matched(rule.verdict, rule.name, rule.reason, self.digest)

    def _select(self, tool: str) -> "_Selected":
        rules = []
        for rule, condition in self._rules:
            if rule.is_for(tool):
                rules.append((rule, condition))
                if condition is None:
                    break
        conditions = [condition for _, condition in rules if condition is not None]
        return _Selected(tuple(rules), FirstOf(conditions) if conditions else None)


@dataclass(frozen=True, slots=True)
class _Selected:
    """The rules for a tool, up to the first that has no condition."""

    rules: tuple[tuple[Rule, Condition | None], ...]
    conditions: FirstOf | None
    """Theirs; None where there are none."""
