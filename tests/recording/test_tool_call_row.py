"""The audit row: its shape for each tool, and that every text in it fits its field whatever a model or a tool wrote."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording import redact
from recording.calls import Scope, ToolCall, ToolResult
from recording.redact import exact
from recording.rows import build_audit_row, open_call
from tests.support.examples import examples

CANARY = "canary-5d41c2"
SCOPE = Scope(session_id="s-1", engine="ollama", model="qwen3", turn_id="t-1")
FIELDS = {
    "id",
    "session_id",
    "engine",
    "tool_name",
    "args_summary",
    "duration_ms",
    "exit_code",
    "http_status",
    "error",
    "result_truncated",
    "result_bytes",
    "created_at_ms",
    "outcome",
    "model",
    "provider_call_id",
    "turn_id",
    "redaction_version",
    "times_observed",
    "shadow",
    "trace_id",
    "principal",
    "on_behalf_of",
    "agent",
    "source",
    "parent_turn_id",
    "mcp_server",
    "args_digest",
    "decision",
    "unconfined",
}
UNDECIDED = common_pb2.Decision(source=common_pb2.DECISION_SOURCE_NONE)
MAX_CHARACTERS = {"id": 128, "session_id": 128, "engine": 64, "tool_name": 128, "model": 256, "provider_call_id": 256}
MAX_CHARACTERS |= {"turn_id": 128}
MAX_BYTES = {"args_summary": 4_096, "error": 2_048}


def call(tool: str, **arguments: object) -> ToolCall:
    return ToolCall(id="0190-1", provider_call_id="call_1", name=tool, arguments=json.dumps(arguments))


def optional_fields(row: audit_pb2.AuditRow) -> set[str]:
    return {name for name in ("exit_code", "http_status", "error") if row.HasField(name)}


def test_the_fields_of_a_row_are_these_and_no_others():
    """A new field is seen by whoever adds it to this list: none may carry content."""
    assert {field.name for field in audit_pb2.AuditRow.DESCRIPTOR.fields} == FIELDS


def test_a_read_leaves_its_path_and_its_size():
    result = ToolResult(CANARY, result_bytes=13, result_truncated=True, started_at_ms=1_700_000_000_000, duration_ms=4)
    row = build_audit_row(call("read", path="src/a.py", offset=3), result, SCOPE)
    assert row == audit_pb2.AuditRow(
        id="0190-1",
        session_id="s-1",
        engine="ollama",
        tool_name="read",
        args_summary='{"path":"src/a.py","offset":3}',
        duration_ms=4,
        result_truncated=True,
        result_bytes=13,
        created_at_ms=1_700_000_000_000,
        outcome=common_pb2.OUTCOME_SUCCEEDED,
        model="qwen3",
        provider_call_id="call_1",
        turn_id="t-1",
        redaction_version=redact.POLICY_VERSION,
        source=common_pb2.SOURCE_OWN_LOOP,
        decision=UNDECIDED,
    )
    assert optional_fields(row) == set()


def test_a_bash_leaves_its_command_and_its_exit_code():
    row = build_audit_row(call("bash", command="make test"), ToolResult(CANARY, exit_code=0), SCOPE)
    assert row.args_summary == '{"command":"make test"}'
    assert optional_fields(row) == {"exit_code"}
    assert row.exit_code == 0


def test_a_webfetch_leaves_its_url_and_its_http_status():
    result = ToolResult(CANARY, http_status=404, result_bytes=13)
    row = build_audit_row(call("webfetch", url="https://a.example/x?key=abc"), result, SCOPE)
    assert row.args_summary == '{"url":"https://a.example/x?key=*"}'
    assert optional_fields(row) == {"http_status"}
    assert row.http_status == 404


def test_a_tool_that_could_not_do_its_work_leaves_why_without_secrets():
    result = ToolResult("", outcome=common_pb2.OUTCOME_FAILED, error="cannot fetch https://me:pw@a.example/: refused")
    row = build_audit_row(call("webfetch", url="https://me:pw@a.example/"), result, SCOPE)
    assert row.outcome == common_pb2.OUTCOME_FAILED
    assert row.error == "cannot fetch https://*@a.example/: refused"


def test_without_a_scope_session_and_engine_are_there_and_unset():
    row = build_audit_row(call("read", path="a"), ToolResult(""))
    assert (row.session_id, row.engine, row.model, row.turn_id) == ("", "", "", "")
    assert {"session_id", "engine"} <= {field.name for field in row.DESCRIPTOR.fields}
    assert row.tool_name == "read"


def test_an_intent_is_the_row_but_for_what_only_the_end_tells(monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_123_456_789)
    asked = call("bash", command="make", timeout_seconds=5)
    intent = open_call(asked, SCOPE)
    assert intent.created_at_ms == 1_700_000_000_123
    assert intent.outcome == common_pb2.OUTCOME_UNSPECIFIED
    assert optional_fields(intent) == set()
    row = build_audit_row(asked, ToolResult("", exit_code=1, started_at_ms=1_700_000_000_200, duration_ms=9), SCOPE)
    assert row.decision == UNDECIDED
    for name in ("outcome", "exit_code", "duration_ms", "result_bytes", "decision"):
        row.ClearField(name)
    row.created_at_ms = intent.created_at_ms
    assert row == intent


def test_a_call_that_never_began_is_dated_now():
    """A row without a time would be refused by the ledger."""
    before = time.time_ns() // 1_000_000
    assert build_audit_row(call("read"), ToolResult("")).created_at_ms >= before


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("write", {"path": "f", "content": CANARY}),
        ("edit", {"path": "f", "old_string": CANARY, "new_string": CANARY}),
        ("bash", {"command": f"cat > f <<EOF\n{CANARY}\nEOF"}),
        ("bash", {"command": f"echo {CANARY} > f"}),
        ("webfetch", {"url": f"https://{CANARY}@a.example/?{'q'}={CANARY}#{CANARY}"}),
        ("read", {"path": "f", "body": CANARY, CANARY + "!": 1}),
        ("mcp__mail__send", {"to": CANARY, "body": [CANARY], "more": {CANARY: CANARY}}),
    ],
)
def test_content_never_enters_a_row(tool, arguments):
    row = build_audit_row(call(tool, **arguments), ToolResult(CANARY, result_bytes=13), SCOPE)
    assert CANARY.encode() not in row.SerializeToString()


def test_malformed_arguments_never_enter_a_row():
    broken = ToolCall("1", "2", "write", '{"content": "' + CANARY)
    assert CANARY.encode() not in build_audit_row(broken, ToolResult(""), SCOPE).SerializeToString()


def test_a_secret_of_the_process_enters_a_row_by_no_field_that_others_write(monkeypatch):
    monkeypatch.setattr(exact, "_forms", ())
    secret = "abc-def-ghi-jkl"
    redact.protect([secret])
    hostile = ToolCall(id="1", provider_call_id=secret, name=f"x{secret}", arguments=json.dumps({secret: secret}))
    scope = Scope("s", f"e{secret}", f"m{secret}", "t")
    row = build_audit_row(hostile, ToolResult(secret, error=f"no {secret}"), scope)
    assert secret.encode() not in row.SerializeToString()


def test_a_redacted_summary_survives_the_wire_unchanged():
    """The ledger stores what it gets, so that what is redacted here is what an operator reads there."""
    row = build_audit_row(call("bash", command="PGPASSWORD=hunter2hunter2 psql -h 'dätabase'"), ToolResult(""), SCOPE)
    assert row.args_summary == '{"command":"PGPASSWORD=[redacted:password] psql -h \'dätabase\'"}'
    assert audit_pb2.AuditRow.FromString(row.SerializeToString()) == row


def test_a_call_without_a_name_has_a_row_that_the_ledger_takes():
    assert build_audit_row(ToolCall("1", "", "", ""), ToolResult("")).tool_name == "(none)"


def test_identifiers_are_kept_as_they_are():
    """A provider's id looks random, and an operator has to find it again."""
    asked = ToolCall("0190b5c2-7e3a-7c31-9f0e-3a5b6c7d8e9f", "call_aB3dE5fG7hJ9kL1mN3pQ5rS7", "read", "{}")
    row = build_audit_row(asked, ToolResult(""), Scope("sess-aB3dE5fG7hJ9kL1mN3pQ5rS7", "openai"))
    assert (row.id, row.provider_call_id) == (asked.id, asked.provider_call_id)
    assert row.session_id == "sess-aB3dE5fG7hJ9kL1mN3pQ5rS7"


ANY_TEXT = st.one_of(
    st.text(st.characters(codec=None), max_size=50),
    st.text(max_size=8_000),
    st.sampled_from(["\ud800" * 300, "\x00" * 300, "é" * 5_000, "\U0001f600" * 3_000, '"\\\n' * 2_000, "\x1b[2J"]),
)
ANY_NUMBER = st.integers()
RESULTS = st.builds(
    ToolResult,
    text=st.just(""),
    outcome=st.sampled_from(common_pb2.Outcome.values()),
    error=st.none() | ANY_TEXT,
    exit_code=st.none() | ANY_NUMBER,
    http_status=st.none() | ANY_NUMBER,
    result_bytes=ANY_NUMBER,
    result_truncated=st.booleans(),
    started_at_ms=ANY_NUMBER,
    duration_ms=ANY_NUMBER,
)


@pytest.mark.long
@settings(max_examples=examples(300), deadline=None)
@given(
    asked=st.builds(ToolCall, id=ANY_TEXT, provider_call_id=ANY_TEXT, name=ANY_TEXT, arguments=ANY_TEXT),
    result=RESULTS,
    scope=st.none() | st.builds(Scope, session_id=ANY_TEXT, engine=ANY_TEXT, model=ANY_TEXT, turn_id=ANY_TEXT),
)
def test_every_call_has_a_row_that_fits(asked, result, scope):
    for row in (open_call(asked, scope), build_audit_row(asked, result, scope)):
        assert row == audit_pb2.AuditRow.FromString(row.SerializeToString())
        for name, limit in MAX_CHARACTERS.items():
            assert len(getattr(row, name)) <= limit
        for name, limit in MAX_BYTES.items():
            assert len(getattr(row, name).encode()) <= limit
        assert row.tool_name
        assert min(row.duration_ms, row.result_bytes, row.created_at_ms) >= 0
        assert not any("\x00" in getattr(row, name) for name in MAX_CHARACTERS | MAX_BYTES)


def test_a_secret_that_becomes_known_is_redacted_in_the_next_row_of_a_scope(monkeypatch):
    monkeypatch.setattr(exact, "_forms", ())
    scope = Scope(session_id="s-1", engine="ollama", model=f"served-by-{CANARY}", turn_id="t-1")
    call = ToolCall("row", "call_1", "read", "{}")
    assert open_call(call, scope).model == scope.model
    redact.protect([CANARY])
    assert open_call(call, scope).model == "served-by-[redacted:own-secret]"
