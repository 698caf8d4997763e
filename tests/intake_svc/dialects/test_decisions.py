"""What agents say about who decided, who was asked, and who acted for whom."""

import pytest
from onrecord.common.v1 import common_pb2

from tests.intake_svc.dialects.exports import Export, log_records, put, read, sample, spans_with

ALLOWED, DENIED = common_pb2.VERDICT_ALLOWED, common_pb2.VERDICT_DENIED
UNKNOWN = common_pb2.VERDICT_UNSPECIFIED
CONFIGURATION, RULE = common_pb2.DECISION_SOURCE_CONFIGURATION, common_pb2.DECISION_SOURCE_RULE
PERSON, AGENT = common_pb2.DECISION_SOURCE_PERSON, common_pb2.DECISION_SOURCE_AGENT_OWN
CLAUDE, CODEX = "claude-code-2.1.197-logs", "codex-0.171.0"


def without(export: Export, event: str) -> Export:
    """The export less the log records of an event."""
    for scope in export.logs.scope_logs:
        kept = [record for record in scope.log_records if record not in log_records(export, event)]
        del scope.log_records[:]
        scope.log_records.extend(kept)
    return export


@pytest.mark.parametrize(
    ("name", "event", "decision", "source", "expected"),
    [
        (CLAUDE, "tool_decision", "accept", "config", (CONFIGURATION, ALLOWED, "")),
        (CLAUDE, "tool_decision", "accept", "hook", (RULE, ALLOWED, "hook")),
        (CLAUDE, "tool_decision", "accept", "user_temporary", (PERSON, ALLOWED, "")),
        (CLAUDE, "tool_decision", "accept", "user_permanent", (PERSON, ALLOWED, "")),
        (CLAUDE, "tool_decision", "accept", "", (AGENT, ALLOWED, "")),
        (CODEX, "codex.tool_decision", "approved", "Config", (CONFIGURATION, ALLOWED, "")),
        (CODEX, "codex.tool_decision", "approved_for_session", "User", (PERSON, ALLOWED, "")),
        (CODEX, "codex.tool_decision", "approved", "AutomatedReviewer", (RULE, ALLOWED, "automated_reviewer")),
    ],
)
def test_a_call_that_ran_has_the_decision_that_came_with_it(name, event, decision, source, expected):
    export = sample(name)
    put(log_records(export, event)[0].attributes, decision=decision, source=source)
    reading = read(export)
    (row,) = reading.calls

    assert (row.decision.source, row.decision.verdict, row.decision.rule) == expected
    assert bool(row.decision.decided_at_ms) == (expected[0] == PERSON)
    assert row.outcome == common_pb2.OUTCOME_SUCCEEDED
    assert reading.intents == ()


@pytest.mark.parametrize(
    ("name", "events", "decision", "source", "expected"),
    [
        (CLAUDE, ("tool_decision", "tool_result"), "reject", "user_reject", PERSON),
        (CLAUDE, ("tool_decision", "tool_result"), "reject", "user_abort", PERSON),
        (CLAUDE, ("tool_decision", "tool_result"), "reject", "config", CONFIGURATION),
        (CLAUDE, ("tool_decision", "tool_result"), "reject", "hook", RULE),
        (CLAUDE, ("tool_decision", "tool_result"), "a_new_word", "config", CONFIGURATION),
        (CODEX, ("codex.tool_decision", "codex.tool_result"), "denied", "User", PERSON),
        (CODEX, ("codex.tool_decision", "codex.tool_result"), "abort", "User", PERSON),
        (CODEX, ("codex.tool_decision", "codex.tool_result"), "a_new_word", "Config", CONFIGURATION),
    ],
)
def test_a_refused_call_that_never_ran_is_one_denied_row(name, events, decision, source, expected):
    """Also where the decision is a word that we do not know: it is never taken for leave."""
    export = without(sample(name), events[1])
    (record,) = log_records(export, events[0])
    put(record.attributes, decision=decision, source=source)
    reading = read(export)
    (row,) = reading.calls

    assert row.outcome == common_pb2.OUTCOME_DENIED
    assert row.provider_call_id in ("toolu_01abc", "call_abc1")
    assert (row.decision.source, row.duration_ms) == (expected, 0)
    assert row.decision.verdict == (UNKNOWN if decision == "a_new_word" else DENIED)
    assert reading.intents == ()


@pytest.mark.parametrize("decision", ["denied", "denied_with_network_policy_deny", "abort", "timed_out"])
def test_codex_tells_of_a_refusal_twice_and_has_one_row(decision):
    export = sample(CODEX)
    put(log_records(export, "codex.tool_decision")[0].attributes, decision=decision, source="User")
    put(log_records(export, "codex.tool_result")[0].attributes, success="false")
    (row,) = read(export).calls

    assert (row.outcome, row.decision.source, row.decision.verdict) == (common_pb2.OUTCOME_DENIED, PERSON, DENIED)


def test_a_call_that_succeeded_has_run_where_the_word_for_its_decision_is_not_known():
    export = sample(CODEX)
    put(log_records(export, "codex.tool_decision")[0].attributes, decision="a_new_word")
    (row,) = read(export).calls

    assert (row.outcome, row.decision.verdict) == (common_pb2.OUTCOME_SUCCEEDED, UNKNOWN)


def test_a_decision_that_says_nothing_is_told_and_decides_nothing():
    export = without(sample(CODEX), "codex.tool_result")
    put(log_records(export, "codex.tool_decision")[0].attributes, decision=None)
    reading = read(export)

    assert reading.not_understood == ("codex: it does not say what was decided",)
    assert (reading.calls, reading.intents) == ((), ())


def test_a_refusal_without_a_calls_id_is_not_taken_for_another_calls():
    export = sample(CODEX)
    put(log_records(export, "codex.tool_decision")[0].attributes, decision="denied", call_id=None)
    put(log_records(export, "codex.tool_result")[0].attributes, call_id=None)

    assert [row.outcome for row in read(export).calls] == [common_pb2.OUTCOME_DENIED, common_pb2.OUTCOME_SUCCEEDED]


@pytest.mark.parametrize(("name", "event"), [(CLAUDE, "tool_result"), (CODEX, "codex.tool_result")])
def test_a_call_that_was_allowed_and_has_not_ended_is_an_intent(name, event):
    (ended,) = read(sample(name)).calls
    reading = read(without(sample(name), event))
    (intent,) = reading.intents

    assert reading.calls == ()
    assert intent.outcome == common_pb2.OUTCOME_UNSPECIFIED
    assert (intent.session_id, intent.provider_call_id) == (ended.session_id, ended.provider_call_id)
    assert (intent.decision, intent.tool_name, intent.source) == (ended.decision, ended.tool_name, ended.source)
    assert intent.created_at_ms
    assert intent.id != ended.id


@pytest.mark.parametrize(
    ("name", "event", "decision", "expected", "outcome"),
    [
        ("gemini", "gemini_cli.tool_call", "auto_accept", (CONFIGURATION, ALLOWED), "OUTCOME_SUCCEEDED"),
        ("gemini", "gemini_cli.tool_call", "modify", (PERSON, ALLOWED), "OUTCOME_SUCCEEDED"),
        ("gemini", "gemini_cli.tool_call", "reject", (PERSON, DENIED), "OUTCOME_DENIED"),
        ("qwen-code", "qwen-code.tool_call", "accept", (PERSON, ALLOWED), "OUTCOME_SUCCEEDED"),
        ("qwen-code", "qwen-code.tool_call", "reject", (PERSON, DENIED), "OUTCOME_DENIED"),
        ("qwen-code", "qwen-code.tool_call", None, (AGENT, ALLOWED), "OUTCOME_SUCCEEDED"),
    ],
)
def test_gemini_and_qwen_have_the_decision_in_the_call(name, event, decision, expected, outcome):
    export = sample(name)
    put(log_records(export, event)[0].attributes, decision=decision)
    (row,) = read(export).calls

    assert (row.decision.source, row.decision.verdict) == expected
    assert common_pb2.Outcome.Name(row.outcome) == outcome


def test_a_call_that_geminis_policy_refused_is_denied_by_configuration():
    """As Gemini CLI 0.61.0 sent it for a rule with `decision = "deny"`."""
    export = sample("gemini")
    (record,) = log_records(export, "gemini_cli.tool_call")
    put(record.attributes, success=False, decision=None, error_type="policy_violation", error="word for word")
    (row,) = read(export).calls

    assert (row.decision.source, row.decision.verdict) == (CONFIGURATION, DENIED)
    assert row.outcome == common_pb2.OUTCOME_DENIED
    assert not row.error


def test_a_call_that_copilot_refused_is_denied():
    """As Copilot CLI 1.0.102 sent it with `--deny-tool`."""
    export = sample("copilot")
    (span,) = spans_with(export, "gen_ai.operation.name", "execute_tool")
    span.status.code = span.status.STATUS_CODE_ERROR
    put(span.attributes, error__type="denied", process__exit__code=None)
    (row,) = read(export).calls

    assert (row.decision.source, row.decision.verdict) == (AGENT, DENIED)
    assert row.outcome == common_pb2.OUTCOME_DENIED
    assert not row.error


def test_accept_of_gemini_is_a_persons_word_only_where_it_would_have_asked():
    """Gemini CLI says `accept` with --yolo too: with nobody there it is configuration, else the agent's account."""
    export = sample("gemini")
    put(log_records(export, "gemini_cli.tool_call")[0].attributes, interactive=True)
    (row,) = read(export).calls

    assert (row.decision.source, row.decision.verdict) == (AGENT, ALLOWED)


def test_a_result_that_does_not_say_how_it_ended_is_no_success():
    export = sample(CLAUDE)
    put(log_records(export, "tool_result")[0].attributes, success=None)
    (row,) = read(export).calls

    assert row.outcome == common_pb2.OUTCOME_INTERRUPTED


def test_a_span_of_claude_without_the_span_of_its_execution_is_no_success():
    export = sample("claude-code-2.1.197-logs-and-traces-details")
    export.logs.Clear()
    (execution,) = spans_with(export, "span.type", "tool.execution")
    (tool,) = spans_with(export, "span.type", "tool")
    execution.parent_span_id = b"another1"
    (row,) = read(export).calls

    assert row.outcome == common_pb2.OUTCOME_INTERRUPTED
    assert row.provider_call_id == "toolu_01abc"
    assert tool.end_time_unix_nano


def test_a_span_of_claude_has_the_type_of_the_error_and_no_words():
    """https://code.claude.com/docs/en/monitoring-usage, claude_code.tool.execution."""
    export = sample("claude-code-2.1.197-logs-and-traces-details")
    export.logs.Clear()
    (execution,) = spans_with(export, "span.type", "tool.execution")
    put(execution.attributes, success=False, error="the words of the shell", error_class="ShellError")

    assert [row.error for row in read(export).calls] == ["the agent tells of ShellError"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        ("TimeoutError", "OUTCOME_TIMED_OUT"),
        ("asyncio.exceptions.CancelledError", "OUTCOME_CANCELLED"),
        ("AbortError", "OUTCOME_CANCELLED"),
        ("ValueError", "OUTCOME_FAILED"),
        ("what the page said, word for word", "OUTCOME_FAILED"),
    ],
)
def test_the_type_of_an_error_says_how_a_call_ended(error, outcome):
    export = sample("pydantic-ai-2.68.0")
    (span,) = spans_with(export, "gen_ai.operation.name", "execute_tool")
    span.status.code = span.status.STATUS_CODE_ERROR
    put(span.events.add(name="exception").attributes, exception__type=error, exception__message="word for word")
    (row,) = read(export).calls

    assert common_pb2.Outcome.Name(row.outcome) == outcome
    assert "word" not in row.error


def test_a_subagent_of_claude_is_a_turn_whose_parent_is_the_prompt_or_the_agent_that_began_it():
    export = sample(CLAUDE)
    first, second = log_records(export, "tool_result")[0], log_records(export, "api_request")[1]
    put(first.attributes, agent_id="agent-1")
    put(second.attributes, agent_id="agent-2", parent_agent_id="agent-1")
    reading = read(export)
    prompt = "f7c3e5e1-f9f7-4405-8890-a042e7aeebab"

    assert [(row.turn_id, row.parent_turn_id) for row in reading.calls] == [("agent-1", prompt)]
    assert [(row.turn_id, row.parent_turn_id) for row in reading.costs] == [(prompt, ""), ("agent-2", "agent-1")]


def test_an_agent_that_a_tool_began_keeps_its_parent():
    """agent calc ─▶ execute_tool ─▶ agent inner ─▶ chat: the chat's turn is the inner agent's, its parent calc's."""
    export = sample("pydantic-ai-2.68.0")
    spans = export.spans.scope_spans[0].spans
    (tool,) = spans_with(export, "gen_ai.operation.name", "execute_tool")
    chat = spans_with(export, "gen_ai.operation.name", "chat")[1]
    inner = spans.add(trace_id=chat.trace_id, span_id=b"inner123", parent_span_id=tool.span_id)
    put(inner.attributes, gen_ai__operation__name="invoke_agent", gen_ai__agent__call__id="run-2")
    chat.parent_span_id = inner.span_id
    put(chat.attributes, gen_ai__agent__call__id="run-2")
    reading = read(export)
    outer = "83097651-44c9-4c0e-8a42-e2ffdf08bdb3"

    assert [(row.turn_id, row.parent_turn_id) for row in reading.costs] == [(outer, ""), ("run-2", outer)]
    assert [(row.turn_id, row.parent_turn_id) for row in reading.calls] == [(outer, "")]


def test_spans_that_are_their_own_ancestors_are_read():
    export = sample("pydantic-ai-2.68.0")
    for span in export.spans.scope_spans[0].spans:
        span.parent_span_id = span.span_id

    assert len(read(export).calls) == 1
