"""The file of rules: TOML, read again when it changes, as the file of callers is.

[[rules]]
name = "no-force-push"
tools = ["bash"]
condition = 'args.command.contains("git push") && args.command.contains("--force")'
verdict = "deny"
reason = "Others build on what you would overwrite: push to a branch of your own."

A file that is cut, as by a full disk, lacks its last rules: `count = 12` before the first says how many there are.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import ValidationError

from recording.channel.watched import Watched, WrongFile
from service_kit.extras import is_missing
from service_kit.toml_file import first_problem, line_of_table, parse_toml

if TYPE_CHECKING:  # the library of conditions is loaded by who has rules
    from service_kit.rules.facts import Facts
    from service_kit.rules.policy import Matched, Policy

log = structlog.get_logger(__name__)

MAX_FILE_BYTES = 256 * 1024
MAX_RULES = 100


class Rules:
    """The rules in force: those of the file, or the last good ones where it cannot be used."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            WrongFile: the file cannot be used.
        """
        self._watched = Watched([path], partial(load_policy, path), lines=True)
        self._listeners: list[Callable[[str], None]] = []
        self._known: Policy | None = None
        self.current()

    def tell(self, listener: Callable[[str], None]) -> None:
        """Tells the digest of the rules in force, now and whenever others come into force."""
        self._listeners.append(listener)
        listener(self.current().digest)

    def digest(self) -> str:
        """The digest of the rules in force."""
        return self.current().digest

    def decide(self, facts: "Facts") -> "tuple[Matched | None, str]":
        """What the rules in force say of a call, None if none holds; and their digest."""
        policy = self.current()
        return policy.decide(facts), policy.digest

    def trouble(self) -> str:
        """Why the file as it is cannot be used, so that earlier rules are in force; empty when it can."""
        self.current()
        return self._watched.trouble

    def current(self) -> "Policy":
        """The rules in force."""
        policy = self._watched.current()
        if policy is not self._known:
            self._known = policy
            log.info("rules.loaded", rules=len(policy.rules), policy_digest=policy.digest)
            for listener in self._listeners:
                listener(policy.digest)
        return policy


def check_rules(path: Path, content: bytes) -> None:
    """Looks whether a gateway can start with a file.

    Raises:
        WrongFile: as load_policy().
    """
    load_policy(path, [content])


def load_policy(path: Path, contents: Sequence[bytes]) -> "Policy":
    """The rules in the contents of the one file at path. Their digest is the file's SHA-256, as sha256sum prints it.

    Raises:
        WrongFile: it is not as described above; the message names the rule and where possible the line.
    """
    content = contents[0]
    if len(content) > MAX_FILE_BYTES:
        raise WrongFile(path, f"is larger than {MAX_FILE_BYTES // 1024} KiB")
    document = parse_toml(path, content)
    tables = document.get("rules")
    if set(document) - {"rules", "count"} or not isinstance(tables, list) or not tables:
        raise WrongFile(path, "must hold [[rules]] tables, and may hold their count before them, and nothing else")
    if "count" in document and document["count"] != len(tables):
        raise WrongFile(path, f"says that it has {document['count']} rules, and has {len(tables)}")
    if len(tables) > MAX_RULES:
        raise WrongFile(path, f"has more than {MAX_RULES} rules")
    try:
        from service_kit.rules.policy import Policy
    except ImportError:
        raise WrongFile(path, f"cannot be used: {is_missing('rules')}") from None
    rules = []
    names: set[str] = set()
    for number, table in enumerate(tables, 1):
        try:
            rule, condition = _load_rule(table)
            if rule.name in names:
                raise ValueError("name: another rule has it already")
        except ValueError as error:
            reason = first_problem(error) if isinstance(error, ValidationError) else str(error)
            raise WrongFile(path, f"{_place(content, table, number, len(tables))}: {reason}") from None
        names.add(rule.name)
        rules.append((rule, condition))
    return Policy(rules, hashlib.sha256(content).hexdigest())


def _load_rule(table: Any) -> Any:
    from service_kit.rules.conditions import compile_condition
    from service_kit.rules.policy import Rule

    rule = Rule.model_validate(table)
    try:
        return rule, None if rule.condition is None else compile_condition(rule.condition)
    except ValueError as error:
        raise ValueError(f"condition: {error}") from None


def _place(content: bytes, table: Any, number: int, total: int) -> str:
    """Which rule it is, by its number, name and line, as far as they can be told."""
    name = table.get("name") if isinstance(table, dict) else None
    line = line_of_table(content, "rules", number, total)
    told = [ascii(name[:64])] if isinstance(name, str) else []
    told += [f"line {line}"] if line else []
    return f"rule {number} ({', '.join(told)})" if told else f"rule {number}"
