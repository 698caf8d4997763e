"""Cases that rules must decide as somebody expects, for people's CI.

[[cases]]
tool = "bash"
args = { command = "git push --force" }
labels = { team = "web" }
expect = "deny"           # or allow, ask, default: no rule holds
rule = "no-force-push"    # which must have decided; may be left out

Names, labels, `agent`, `engine`, `model` and `session` are empty where a case has none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from recording.channel.watched import WrongFile
from service_kit.rules.facts import Facts
from service_kit.rules.policy import Policy
from service_kit.toml_file import first_problem, line_of_table, parse_toml


class Agent(BaseModel):
    """The agent of a case."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = ""
    version: str = ""


class Case(BaseModel):
    """One case, as the file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = ""
    tool: Annotated[str, Field(min_length=1)]
    args: dict[str, JsonValue] = {}
    principal: str = ""
    labels: dict[str, str] = {}
    agent: Agent = Agent()
    engine: str = ""
    model: str = ""
    session: str = ""
    expect: Literal["allow", "deny", "ask", "default"]
    rule: str = ""

    def facts(self) -> Facts:
        """What a condition sees of it."""
        return Facts(
            self.tool,
            self.args,
            self.principal,
            self.labels,
            self.agent.model_dump(),
            self.engine,
            self.model,
            self.session,
        )


@dataclass(frozen=True, slots=True)
class Checked:
    """How a case came out."""

    place: str
    """Which case it is."""
    rule: str
    """The name of the rule that decided; empty where none did."""
    problem: str
    """How it differs from what was expected; empty where it does not."""


def load_cases(path: Path, content: bytes) -> list[tuple[str, Case]]:
    """The cases in the contents of the file at path, each with what it is called in messages.

    Raises:
        WrongFile: it is not as described above.
    """
    document = parse_toml(path, content)
    tables = document.get("cases")
    if set(document) != {"cases"} or not isinstance(tables, list) or not tables:
        raise WrongFile(path, "must hold [[cases]] tables, and nothing else")
    cases = []
    for number, table in enumerate(tables, 1):
        line = line_of_table(content, "cases", number, len(tables))
        place = f"case {number}" + (f" (line {line})" if line else "")
        try:
            case = Case.model_validate(table)
        except ValidationError as error:
            raise WrongFile(path, f"{place}: {first_problem(error)}") from None
        cases.append((f"{place}: {case.name}" if case.name else place, case))
    return cases


def check_cases(policy: Policy, cases: Sequence[tuple[str, Case]]) -> list[Checked]:
    """How each case comes out."""
    return [_check(policy, place, case) for place, case in cases]


def _check(policy: Policy, place: str, case: Case) -> Checked:
    found = policy.decide(case.facts())
    verdict, rule = (found.verdict, found.rule) if found else ("default", "")
    if verdict == case.expect and rule == (case.rule or rule):
        return Checked(place, rule, "")
    expected = f"{case.expect} by {case.rule}" if case.rule else case.expect
    decided = f"{verdict} by {rule}" if rule else verdict
    why = f" ({found.reason})" if found and found.reason else ""
    return Checked(place, rule, f"expected {expected}, and it is {decided}{why}")
