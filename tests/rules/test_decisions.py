"""Rules where calls are decided: what runs, what the model is told, what the row says."""

import json
from contextlib import aclosing
from pathlib import Path

import pytest
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from demo.script import Call, Script, Step
from gateway_svc.errors import PolicyChanged
from gateway_svc.loop.answers import Answer, Answers
from gateway_svc.tools.bash import BashTool
from gateway_svc.tools.read import ReadTool
from gateway_svc.tools.toolbox import Toolbox
from recording.calls import Scope, ToolCall
from service_kit.rules.file import Rules
from tests.gateway_svc.house import open_house

CONFIGURATION, RULE = common_pb2.DECISION_SOURCE_CONFIGURATION, common_pb2.DECISION_SOURCE_RULE
PERSON = common_pb2.DECISION_SOURCE_PERSON
RULES = """
[[rules]]
name = "no-secrets"
tools = ["read"]
condition = 'args.path.endsWith(".key")'
verdict = "deny"
reason = "Keys are not for you."

[[rules]]
name = "ada-may"
tools = ["bash"]
condition = 'principal == "ada" && labels.team == "web" && agent.name == "coder" && engine == "ollama"'
verdict = "allow"

[[rules]]
name = "ask-clock"
tools = ["time.*"]
condition = 'args.zone != "UTC"'
verdict = "ask"
reason = "Only UTC is usual here."

[[rules]]
name = "silent"
tools = ["bash"]
condition = 'args.command == "halt"'
verdict = "deny"
"""
SCOPE = Scope("0190", "ollama", "m", principal="ada", agent=("coder", "1"))


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return Rules(path)


def toolbox(rules: Rules | None, **policies: str) -> Toolbox:
    return Toolbox([ReadTool(), BashTool(None)], rules=rules, policies=policies)  # type: ignore[arg-type] # a test's


@pytest.mark.parametrize(
    ("tool", "arguments", "scope", "policies", "expected"),
    [
        ("read", {"path": "a.key"}, SCOPE, {}, ("deny", RULE, "no-secrets")),
        ("read", {"path": "a.key"}, SCOPE, {"read": "ask"}, ("deny", RULE, "no-secrets")),
        ("read", {"path": "a.txt"}, SCOPE, {}, ("allow", CONFIGURATION, "")),
        ("read", {"path": "a.txt"}, SCOPE, {"read": "ask"}, ("ask", PERSON, "")),
        ("read", {"file": "a.txt"}, SCOPE, {}, ("deny", RULE, "no-secrets")),
        ("bash", {"command": "ls"}, SCOPE, {"bash": "ask"}, ("allow", RULE, "ada-may")),
        ("bash", {"command": "ls"}, SCOPE, {"bash": "deny"}, ("deny", CONFIGURATION, "tool_policy")),
        ("bash", {"command": "ls"}, Scope("0190", "openai", principal="ada"), {"bash": "ask"}, ("ask", PERSON, "")),
        ("bash", {"command": "halt"}, Scope("0190", "openai"), {}, ("deny", RULE, "silent")),
    ],
)
def test_rules_come_before_policies_but_never_against_deny(rules, tool, arguments, scope, policies, expected):
    call = ToolCall("row-1", "call-1", tool, json.dumps(arguments))
    ruling = toolbox(rules, **policies).rule_on(call, scope, {"team": "web"})
    assert (ruling.policy, ruling.decision.source, ruling.decision.rule) == expected
    assert ruling.decision.policy_digest == rules.current().digest
    assert bool(ruling.told) == (expected[1] == RULE and expected[0] == "deny")


@pytest.mark.parametrize(("tool", "arguments"), [("fly", "{}"), ("read", "{"), ("read", "[1]"), ("read", '{"a": NaN}')])
def test_a_call_that_cannot_run_is_left_to_the_toolbox(rules, tool, arguments):
    """It is no call of a tool, or its arguments cannot be read."""
    ruling = toolbox(rules).rule_on(ToolCall("row-1", "call-1", tool, arguments), SCOPE, {})
    assert (ruling.policy, ruling.decision.rule, ruling.told) == ("allow", "", "")


async def test_a_call_that_a_rule_denies_does_not_run_and_its_row_says_which_and_why(rules, tmp_path):
    """The model reads the reason, the row has it with the rule and the digest of the rules, and the others run."""
    calls = [
        {"name": "read", "arguments": {"path": "my.key"}},
        {"name": "read", "arguments": {"path": "notes.txt"}},
        {"name": "bash", "arguments": {"command": "halt"}},
    ]
    script = Script.model_validate({"steps": [{"tool_calls": calls}, {"text": "Done."}]})
    async with open_house(tmp_path, script, script, rules=rules) as house:
        (house.workspace / "my.key").write_text("canary")
        await house.run(new_session={"labels": {"team": "web"}})
        asked = json.dumps([request.json for request in house.ollama.requests if request.method == "POST"])
    digest = rules.current().digest
    rows = {(row.tool_name, row.decision.rule): row for row in house.calls}
    assert set(rows) == {("read", "no-secrets"), ("read", ""), ("bash", "silent")}
    denied, read, halted = rows["read", "no-secrets"], rows["read", ""], rows["bash", "silent"]
    for row, reason in ((denied, "Keys are not for you."), (halted, "")):
        assert (row.outcome, row.decision.verdict) == (common_pb2.OUTCOME_DENIED, common_pb2.VERDICT_DENIED)
        assert (row.decision.source, row.decision.reason) == (RULE, reason)
    assert denied.error == "the rule no-secrets does not allow the call"
    assert (read.outcome, read.decision.source) == (common_pb2.OUTCOME_SUCCEEDED, CONFIGURATION)
    assert {row.decision.policy_digest for row in house.calls} == {digest}
    assert "Error: Keys are not for you." in asked
    assert "Error: The rule silent does not allow this call." in asked
    assert "high tide at noon" in asked
    assert "canary" not in asked


@pytest.mark.parametrize("answers", ["nobody", "yes"])
async def test_a_rule_that_asks_has_the_call_wait_and_its_row_names_it(tmp_path, answers):
    path = tmp_path / "rules.toml"
    path.write_text('[[rules]]\nname = "ask-all"\nverdict = "ask"\nreason = "Look first."\n')
    script = Script.model_validate(
        {"steps": [{"tool_calls": [{"name": "read", "arguments": {"path": "notes.txt"}}]}, {"text": "Done."}]}
    )
    waited = []
    waiting = Answers(0 if answers == "nobody" else 60)
    async with (
        open_house(tmp_path, script, script, rules=Rules(path), answers=waiting) as house,
        aclosing(house.turns.run(pb.RunTurnRequest(input="go"))) as events,
    ):
        async for event in events:
            if event.tool_call_started.HasField("pending"):
                waited.append(event.tool_call_started.tool_call_id)
                if answers == "yes":
                    waiting.give(waited[0], Answer(allow=True, reason="seen", by="bob"))
    (row,) = house.calls
    assert waited == [row.id]
    assert row.decision.policy_digest
    said = (row.outcome, row.decision.source, row.decision.rule, row.decision.reason, row.decision.decided_by)
    assert said == (
        (common_pb2.OUTCOME_DENIED, CONFIGURATION, "ask-all", "Look first.", "")
        if answers == "nobody"
        else (common_pb2.OUTCOME_SUCCEEDED, PERSON, "ask-all", "seen", "bob")
    )


@pytest.mark.parametrize("rule", ["ada-may", "silent", "none"])
async def test_a_row_says_that_its_program_ran_without_a_jail_whatever_let_it_run(tmp_path, rule):
    verdict = {"ada-may": "allow", "silent": "deny"}.get(rule)
    path = tmp_path / "rules.toml"
    path.write_text(
        f'[[rules]]\nname = "{rule}"\ntools = ["{"bash" if verdict else "x"}"]\nverdict = "{verdict or "deny"}"\n'
    )
    given = (("bash", {"command": "true"}), ("read", {"path": "notes.txt"}), ("bash", {"seconds": 1}))
    calls = tuple(Call(name=name, arguments=arguments) for name, arguments in given)
    script = Script(steps=(Step(tool_calls=calls), Step(text="ok")))
    async with open_house(tmp_path, script, script, rules=Rules(path), unconfined=["bash"]) as house:
        await house.run()
    assert len(house.calls) == len(calls)
    ran = [(row.tool_name, row.outcome) for row in house.calls if row.unconfined]
    assert ran == ([] if verdict == "deny" else [("bash", common_pb2.OUTCOME_SUCCEEDED)])


async def test_an_approval_under_rules_that_changed_is_refused_and_so_is_the_call(tmp_path):
    """What was asked about under other rules does not run, whoever approves it."""
    path = tmp_path / "rules.toml"
    path.write_text('[[rules]]\nname = "ask-all"\nverdict = "ask"\nreason = "Look first."\n')
    step = {"tool_calls": [{"name": "read", "arguments": {"path": "notes.txt"}}]}
    script = Script.model_validate({"steps": [step, {"text": "Done."}]})
    refused = []
    rules = Rules(path)
    waiting = Answers(60)
    waiting.policy_digest = rules.digest
    async with open_house(tmp_path, script, script, rules=rules, answers=waiting) as house:
        async with aclosing(house.turns.run(pb.RunTurnRequest(input="go"))) as events:
            async for event in events:
                if event.tool_call_started.HasField("pending"):
                    call_id = event.tool_call_started.tool_call_id
                    other = path.with_suffix(".new")
                    other.write_text(path.read_text().replace("Look first.", "Look twice."))
                    other.replace(path)
                    with pytest.raises(PolicyChanged):
                        waiting.give(call_id, Answer(allow=True, by="bob"))
                    refused.append(call_id)
        asked = json.dumps([request.json for request in house.ollama.requests if request.method == "POST"])
    (row,) = house.calls
    assert refused == [row.id]
    said = (row.outcome, row.decision.source, row.decision.verdict, row.decision.rule, row.decision.decided_by)
    assert said == (common_pb2.OUTCOME_DENIED, CONFIGURATION, common_pb2.VERDICT_DENIED, "policy_changed", "")
    assert "The rules changed while the call waited" in asked, "the model may call again, and the new rules decide"


async def test_rules_that_changed_decide_on_the_next_call(rules, tmp_path):
    call = ToolCall("row-1", "call-1", "read", '{"path": "a.key"}')
    tools = toolbox(rules)
    assert tools.rule_on(call, SCOPE, {}).policy == "deny"
    other = tmp_path / "other"
    other.write_text(RULES.replace(".key", ".pem"))
    other.replace(tmp_path / "rules.toml")
    assert tools.rule_on(call, SCOPE, {}).policy == "allow"
