"""Rules that come with a hook: the agent is answered in its own form, and the row says which rule decided."""

import json
from typing import Any

import pytest

from intake_svc.hooks.event import read_event
from intake_svc.hooks.rules import decide
from tests.intake_svc.conftest import open_house
from tests.intake_svc.hooks.test_claude import after, before, hook, rows_of, tell

RULES = """
[[rules]]
name = "no-force-push"
tools = ["Bash"]
condition = 'args.command.contains("--force")'
verdict = "deny"
reason = "Push to a branch of your own."

[[rules]]
name = "production-asks"
tools = ["Bash"]
condition = 'args.command.contains("production")'
verdict = "ask"
"""

BY_LABEL = """
[[rules]]
name = "main-is-closed"
condition = 'has(labels.branch) && labels.branch == "main" && labels.repository.endsWith("/shop.git")'
verdict = "deny"
"""


def answer(said: Any) -> Any:
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)["hookSpecificOutput"] if said.stdout else {}


@pytest.mark.long
def test_deny_ask_and_neither(tmp_path):
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    with open_house(tmp_path) as house:
        house.start_audit()
        door = house.start_door(INTAKE_JOIN_SECONDS="0.2")
        words = ("--rules", str(rules))

        denied = hook(door.http, before("s-d", tool_input={"command": "git push --force"}), *words, folder=tmp_path)
        assert answer(denied)["permissionDecision"] == "deny"
        assert answer(denied)["permissionDecisionReason"] == "Push to a branch of your own."
        (row,) = rows_of(house, "s-d")
        assert row["rule"] == "no-force-push"
        assert row["policy_digest"]
        assert row["duration_ms"] == 0

        asked = hook(door.http, before("s-a", tool_input={"command": "deploy production"}), *words, folder=tmp_path)
        assert answer(asked)["permissionDecision"] == "ask"
        tell(door, after("s-a"))
        (row,) = rows_of(house, "s-a")
        assert row["rule"] == "production-asks"

        codex = hook(
            door.http,
            before("s-c", tool_input={"command": "deploy production"}),
            *words,
            agent="codex",
            folder=tmp_path,
        )
        assert answer(codex)["permissionDecision"] == "deny"  # it cannot ask

        assert answer(hook(door.http, before("s-n"), *words, folder=tmp_path)) == {}
        rules.write_text("[[rules]]\nname = 1\n")
        assert answer(hook(door.http, before("s-w"), *words, folder=tmp_path)) == {}
        strict = hook(door.http, before("s-w"), *words, "--mode", "strict", folder=tmp_path)
        assert answer(strict)["permissionDecision"] == "deny"


@pytest.mark.parametrize(
    ("place", "rule"), [(("https://git.example/shop.git", "main"), "main-is-closed"), (("", ""), "")]
)
def test_rules_see_the_repository_and_the_branch_where_the_hook_tells_them(place, rule):
    event = read_event("claude", before("s"), 1_790_000_000_000, place=place)
    decision, said = decide(BY_LABEL.encode(), event, "", is_strict=True)
    assert (decision.rule if decision else "") == rule
    assert bool(said) == bool(rule)
