"""Rules on arguments in the pair: tools of MCP servers, a file that changes, what the record says of both."""

import json

import pytest
from onrecord.audit.v1 import audit_pb2, questions_pb2
from onrecord.common.v1 import common_pb2

from demo.processes import run_command
from demo.script import Call
from tests.e2e.conftest import run_turn, text_of
from tests.e2e.test_mcp import calls_of, mcp_file

RULES = """
[[rules]]
name = "no-shout"
tools = ["t.*"]
condition = 'args.text == "HI"'
verdict = "deny"
reason = "Speak softly."
"""


@pytest.mark.long
async def test_rules_decide_on_tools_of_mcp_servers_and_a_changed_file_is_on_the_record(make_pair, tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    pair = await make_pair(calls_of(Call(name="t.echo", arguments={"text": "HI"})))
    pair.start_audit()
    service = pair.start_gateway(GATEWAY_RULES_FILE=str(path), **mcp_file(tmp_path))
    gateway = await pair.gateway(service)
    assert text_of(await run_turn(gateway, engine="ollama")) == "Done."
    asked = json.dumps([request.json for request in pair.model.requests if request.method == "POST"])
    assert "Speak softly." in asked
    (row,) = await pair.rows(1)
    assert (row.tool_name, row.outcome) == ("t.echo", common_pb2.OUTCOME_DENIED)
    decision = row.decision
    assert (decision.source, decision.rule) == (common_pb2.DECISION_SOURCE_RULE, "no-shout")
    assert decision.reason == "Speak softly."

    other = path.with_suffix(".new")
    other.write_text(RULES.replace("HI", "HO"))
    other.replace(path)
    assert text_of(await run_turn(gateway, engine="ollama")) == "Done."
    _, row = await pair.rows(2)
    assert row.outcome == common_pb2.OUTCOME_SUCCEEDED
    digests = [(decision.policy_digest,), (row.decision.policy_digest,)]
    assert digests[0] != digests[1]
    controls = await (await pair.questions()).ListControls(questions_pb2.ListControlsRequest())
    loaded = [record.control for record in reversed(controls.controls)]
    assert {(control.kind, control.scope) for control in loaded} == {
        (audit_pb2.CONTROL_KIND_RULES_LOADED, "rules.toml")
    }
    assert [(control.policy_digest,) for control in loaded] == digests


@pytest.mark.long
async def test_a_gateway_does_not_start_with_rules_that_are_wrong_or_in_its_workspace(make_pair, tmp_path):
    pair = await make_pair(calls_of())
    path = tmp_path / "rules.toml"
    for text, told in ((RULES.replace("args.text", "arg.text"), "rule 1 ('no-shout', line 2): condition: undeclared"),):
        path.write_text(text)
        ran = run_command("gateway_svc", pair.gateway_env({"GATEWAY_RULES_FILE": str(path)}), "serve")
        assert ran.returncode == 2
        assert "GATEWAY_RULES_FILE: " in ran.stderr
        assert told in ran.stderr
    inside = pair.workspace / "rules.toml"
    inside.write_text(RULES)
    ran = run_command("gateway_svc", pair.gateway_env({"GATEWAY_RULES_FILE": str(inside)}), "serve")
    assert ran.returncode == 2
    assert "GATEWAY_RULES_FILE: " in ran.stderr
    assert "must not lie in GATEWAY_WORKSPACE" in ran.stderr
