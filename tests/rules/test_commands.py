"""`gateway-svc rules`, as people and their CI run it."""

import asyncio
import re
from pathlib import Path

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2_grpc
from onrecord.common.v1 import common_pb2

from audit_svc.sqlite.store import SqliteLedger
from gateway_svc.__main__ import program
from tests.audit_svc.samples import NOW_MS, audit_row, record_request, session_row
from tests.audit_svc.serving import serving
from tests.support.command_line import Result, invoke

RULES = """
[[rules]]
name = "no-etc"
tools = ["read", "write"]
condition = 'args.path.startsWith("/etc")'
verdict = "deny"
reason = "Settings of the machine are not yours."

[[rules]]
name = "web-may"
tools = ["webfetch"]
condition = 'labels.team == "web"'
verdict = "allow"

[[rules]]
name = "bash-ask"
tools = ["bash"]
verdict = "ask"

[[rules]]
name = "ops-coder"
tools = ["grep"]
condition = 'principal == "ops" && agent.name == "coder"'
verdict = "deny"
"""
CASES = """
[[cases]]
tool = "read"
args = { path = "/etc/passwd" }
expect = "deny"
rule = "no-etc"

[[cases]]
name = "a fetch of the web team"
tool = "webfetch"
labels = { team = "web" }
expect = "allow"

[[cases]]
tool = "glob"
expect = "default"
"""

DECISION = {"source": common_pb2.DECISION_SOURCE_CONFIGURATION, "verdict": common_pb2.VERDICT_ALLOWED}


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


def run(*arguments: object) -> Result:
    return invoke(program, ["rules", *map(str, arguments)])


def run_cases(rules: Path, cases: str) -> Result:
    path = rules.with_name("cases.toml")
    path.write_text(cases)
    return run("test", rules, path)


def test_a_good_file_is_shown_with_its_digest(rules):
    result = run("check", rules)
    assert result.exit_code == 0
    assert "no-etc" in result.output
    assert "4 rules, digest " in result.output


@pytest.mark.parametrize("text", ["", "[[rules]]\nname = 'a'\nverdict = 'deny'\ncondition = 'x'\n"])
def test_a_wrong_file_is_told_with_exit_code_2(rules, text):
    rules.write_text(text)
    result = run("check", rules)
    assert result.exit_code == 2
    assert str(rules) in result.output
    assert run("check", rules.with_name("nowhere")).exit_code == 2


def test_cases_that_come_out_as_expected_pass_and_rules_without_a_case_are_named(rules):
    result = run_cases(rules, CASES)
    assert result.exit_code == 0
    assert "3 of 3 cases come out as expected" in result.output
    assert "No case is decided by: bash-ask, ops-coder" in result.output


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            'expect = "allow"',
            'expect = "deny"',
            "case 2 (line 8): a fetch of the web team: expected deny, and it is allow",
        ),
        ('rule = "no-etc"', 'rule = "bash-ask"', "expected deny by bash-ask, and it is deny by no-etc"),
        ('tool = "glob"', 'tool = "bash"', "case 3 (line 14): expected default, and it is ask by bash-ask"),
        ('labels = { team = "web" }', "", "it is deny by web-may (The rule web-may could not be applied"),
    ],
)
def test_a_case_that_comes_out_otherwise_is_told_with_exit_code_1(rules, old, new, told):
    result = run_cases(rules, CASES.replace(old, new))
    assert result.exit_code == 1
    assert told in result.output
    assert "2 of 3 cases" in result.output


@pytest.mark.parametrize(
    ("cases", "told"),
    [
        ("", "must hold [[cases]]"),
        (CASES + "\n[x]\n", "must hold [[cases]]"),
        (CASES.replace('expect = "deny"', 'expect = "refuse"'), "case 1 (line 2): expect: "),
        (CASES.replace("args = {", "argz = {"), "case 1 (line 2): argz: "),
        (CASES.replace('path = "/etc/passwd"', "path = 2020-01-01"), "case 1 (line 2): args.path"),
    ],
)
def test_a_wrong_file_of_cases_is_told_with_exit_code_2(rules, cases, told):
    result = run_cases(rules, cases)
    assert result.exit_code == 2
    assert told in result.output


async def test_rules_are_tried_on_recorded_calls_as_far_as_the_record_tells(rules, tmp_path):
    """The tool, labels, the caller and the outcome are known; arguments are not, and a rule that needs them says so."""
    rows = [
        audit_row(tool_name="bash"),
        audit_row(tool_name="bash", outcome=common_pb2.OUTCOME_DENIED),
        audit_row(tool_name="webfetch", session_id="web"),
        audit_row(tool_name="webfetch", session_id="unknown"),
        audit_row(tool_name="read"),
        audit_row(tool_name="glob"),
        audit_row(tool_name="grep"),  # as rows were before they said who acted
        audit_row(tool_name="grep", principal="ops", agent={"name": "coder"}, decision=DECISION),
        audit_row(tool_name="grep", principal="ada", agent={"name": "coder"}, decision=DECISION),
        audit_row(tool_name="bash", shadow=True),
        audit_row(tool_name="bash", created_at_ms=NOW_MS - 8 * 86_400_000),
    ]
    ledger = SqliteLedger.open(tmp_path / "audit.db", queue_rows=1000)
    try:
        async with serving(ledger) as (address, _):
            async with grpc.aio.insecure_channel(address) as channel:
                sessions = [session_row(id="web", labels={"team": "web"})]
                await audit_pb2_grpc.AuditServiceStub(channel).RecordBatch(
                    record_request(tool_calls=rows, sessions=sessions), wait_for_ready=True
                )
            result = await asyncio.to_thread(run, "try", rules, "--since", "7d", "--target", address)
    finally:
        await ledger.close()
    assert result.exit_code == 0, result.output
    rule, *lines = result.stdout.splitlines()[:6]
    assert rule.startswith("rule")
    assert [re.split("  +", line) for line in lines] == [
        ["no-etc", "deny", "0", "0", "1"],
        ["web-may", "allow", "1", "1", "1"],
        ["bash-ask", "ask", "2", "1", "0"],
        ["ops-coder", "deny", "1", "1", "1"],
        ["(no rule)", "default", "2"],
    ]
    assert "9 calls" in result.output
    assert "Could not be tried on 3 calls of" in result.output
    assert result.output.rstrip().endswith("no-etc, web-may, ops-coder")


@pytest.mark.long
def test_a_ledger_that_does_not_answer_is_told_with_exit_code_1(rules):
    result = run("try", rules, "--target", "127.0.0.1:1")
    assert result.exit_code == 1
    assert "nobody listens on 127.0.0.1:1: is an audit service running there?" in result.stderr
