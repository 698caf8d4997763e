"""What each producer really sent becomes the rows that its table says."""

import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from audit_svc.ledger.batch import read_batch
from intake_svc.dialects import read_spans
from recording.row_version import ROW_VERSION
from tests.intake_svc.dialects.exports import SAMPLES, put, read, sample

OK, FAILED = common_pb2.OUTCOME_SUCCEEDED, common_pb2.OUTCOME_FAILED
BY_CONFIGURATION = (common_pb2.DECISION_SOURCE_CONFIGURATION, common_pb2.VERDICT_ALLOWED)
BY_AGENT = (common_pb2.DECISION_SOURCE_AGENT_OWN, common_pb2.VERDICT_ALLOWED)
NUMBERS = '{"a":{"type":"number"},"b":{"type":"number"}}'
HELLO = "echo hello-onrecord"


def told(row: audit_pb2.AuditRow):
    """The fields of a call that differ between producers."""
    return {
        "session": row.session_id,
        "turn": row.turn_id,
        "tool": row.tool_name,
        "args": row.args_summary,
        "call": row.provider_call_id,
        "begin": row.created_at_ms,
        "ms": row.duration_ms,
        "outcome": row.outcome,
        "bytes": row.result_bytes,
        "decision": (row.decision.source, row.decision.verdict),
        "agent": (row.agent.name, row.agent.version),
        "trace": row.trace_id,
    }


def spent(row: audit_pb2.CostRow):
    """The tokens of a request: input, output, cached, reasoning; and its price."""
    price = row.cost_micros if row.HasField("cost_micros") else None
    return (row.input_tokens, row.output_tokens, row.cached_input_tokens, row.reasoning_tokens, price)


CALLS = {
    "claude-code-2.1.197-logs": {
        "session": "0c1bc22e-af8e-46c2-949d-a3cfd5c1405f",
        "turn": "f7c3e5e1-f9f7-4405-8890-a042e7aeebab",
        "tool": "Bash",
        "args": "",  # not sent
        "call": "toolu_01abc",
        "begin": 1_795_839_610_066 - 91,  # event.timestamp less duration_ms
        "ms": 91,
        "outcome": OK,
        "bytes": 14,
        "decision": BY_CONFIGURATION,
        "agent": ("claude-code", "2.1.197"),
        "trace": "",
    },
    "claude-code-2.1.197-failed-bash": {
        "session": "496cc19c-4e49-44c9-a08c-993ec4b3905e",
        "turn": "f32facdc-05a2-410d-a073-7b6130a42aa8",
        "tool": "Bash",
        "args": "",
        "call": "toolu_01abc",
        "begin": 1_795_839_807_010 - 58,
        "ms": 58,
        "outcome": FAILED,
        "bytes": 0,
        "decision": BY_CONFIGURATION,
        "agent": ("claude-code", "2.1.197"),
        "trace": "",
    },
    "codex-0.171.0": {
        "session": "ecc63111-208b-465a-88ad-0e1d6ef2856f",
        "turn": "",
        "tool": "exec_command",
        "args": f'{{"cmd":"{HELLO}"}}',
        "call": "call_abc1",
        "begin": 1_795_839_633_898 - 43,
        "ms": 43,
        "outcome": OK,
        "bytes": 0,
        "decision": BY_CONFIGURATION,
        "agent": ("codex_exec", "0.171.0"),
        "trace": "38e2b8c5b3478dc4ade3efcd1a675f57",
    },
    "gemini": {
        "session": "c851ef89-0495-4324-917e-5c5f72b29e41",
        "turn": "c851ef89-0495-4324-917e-5c5f72b29e41",
        "tool": "run_shell_command",
        "args": "",
        "call": "",
        "begin": 1_795_839_637_218 - 98,
        "ms": 98,
        "outcome": OK,
        "bytes": 89,
        "decision": BY_CONFIGURATION,  # it says "accept", and that nobody was there
        "agent": ("gemini-cli", ""),  # its service.version is that of Node.js
        "trace": "cbf24640394af30d06d5756b83d7a352",
    },
    "qwen-code": {
        "session": "3e360102-ea39-4e47-bea8-f4586609d25c",
        "turn": "2d577801b3d2a",
        "tool": "run_shell_command",
        "args": f'{{"command":"{HELLO}","description":{{"type":"string","bytes":9}}}}',
        "call": "",
        "begin": 1_795_839_667_185 - 1_524,
        "ms": 1_524,
        "outcome": OK,
        "bytes": 132,
        "decision": BY_CONFIGURATION,
        "agent": ("qwen-code", "0.15.10"),
        "trace": "",
    },
    "opencode-1.18.33": {
        "session": "ses_c3ad868a13b76ce8",
        "turn": "msg_2569bd423bb1c0fd",  # of the span around it
        "tool": "bash",
        "args": f'{{"command":"{HELLO}"}}',
        "call": "call_abc1",
        "begin": 1_795_839_673_539,
        "ms": 100,
        "outcome": OK,
        "bytes": 0,
        "decision": BY_AGENT,
        "agent": ("opencode", "1.18.33"),
        "trace": "5ca969cc8e3dadc04f17afd9c6dd2148",
    },
    "copilot": {
        "session": "2b962ef9-cfa3-458c-a2ef-beb6c2cebe4f",
        "turn": "ce9b0efd6b928896",  # the span of invoke_agent
        "tool": "bash",
        "args": "",
        "call": "call_abc1",
        "begin": 1_795_839_676_702,
        "ms": 36,
        "outcome": OK,
        "bytes": 0,
        "decision": BY_AGENT,
        "agent": ("github-copilot", "1.0.102"),
        "trace": "04765b7ed6a349aa53c972d37d577504",
    },
    "pydantic-ai-2.68.0": {
        "session": "f26af444-8b89-4ba5-af93-78d1e1dc2ce8",
        "turn": "83097651-44c9-4c0e-8a42-e2ffdf08bdb3",
        "tool": "add",
        "args": "",
        "call": "call_abc1",
        "begin": 1_795_839_715_175,
        "ms": 0,
        "outcome": OK,
        "bytes": 0,
        "decision": BY_AGENT,
        "agent": ("pyd", ""),
        "trace": "b8710ccaf5bbd21e9557eae1c8a9c2fc",
    },
    "google-adk-2.13.0": {
        "session": "a22876fa-94c8-4073-b343-6abc201c26a7",  # of the trace's other spans: the call's has none
        "turn": "5dac69dd130fc2bf",
        "tool": "add",
        "args": "",
        "call": "call_abc1",
        "begin": 1_795_839_770_487,
        "ms": 1,
        "outcome": OK,
        "bytes": 0,
        "decision": BY_AGENT,
        "agent": ("adk", ""),
        "trace": "e89507141b218f78340b4f9f8bf86b50",
    },
    "strands-agents-1.62.0": {
        "session": "s-1",
        "turn": "",
        "tool": "add",
        "args": NUMBERS,  # of an event
        "call": "call_abc1",
        "begin": 1_795_839_760_845,
        "ms": 0,
        "outcome": OK,
        "bytes": 0,
        "decision": BY_AGENT,
        "agent": ("strands", ""),
        "trace": "d909d123e174b6aba218c14867326575",
    },
    "openai-agents-0.24.0-otel-v2-0.1.0": {
        "session": "3db8d516c9c9f19667af35a1107dddb0",  # the trace
        "turn": "",
        "tool": "add",
        "args": NUMBERS,
        "call": "",
        "begin": 1_795_839_724_970,
        "ms": 1,
        "outcome": OK,
        "bytes": 0,
        "decision": BY_AGENT,
        "agent": ("oai-v2", ""),
        "trace": "3db8d516c9c9f19667af35a1107dddb0",
    },
    "openai-agents-0.24.0-openinference-2.6.0": {
        "session": "31434029a8d9e717d6bb9266b98be2d5",
        "turn": "",
        "tool": "add",
        "args": NUMBERS,
        "call": "",
        "begin": 1_795_839_720_692,
        "ms": 1,
        "outcome": OK,
        "bytes": 0,
        "decision": BY_AGENT,
        "agent": ("oai-oi", ""),
        "trace": "31434029a8d9e717d6bb9266b98be2d5",
    },
}

REQUESTS = {
    # input with cache read and written: 11 + 3 + 2; the price is Claude's own account
    "claude-code-2.1.197-logs": ("claude", "claude-sonnet-4-5", [(16, 7, 3, 0, 146)] * 2),
    "claude-code-2.1.197-failed-bash": ("claude", "claude-sonnet-4-5", [(16, 7, 3, 0, 146)] * 2),
    "codex-0.171.0": ("codex", "", []),  # the sample ends before a response.completed
    "gemini": ("gemini", "m", [(11, 7, 3, 2, None)] * 2),
    "qwen-code": ("qwen", "m", [(11, 7, 3, 2, None)] * 2),
    "opencode-1.18.33": ("opencode", "m", [(11, 7, 3, 2, None)] * 2),
    "ai-sdk-4.3.19": ("aisdk", "m", [(11, 7, 0, 0, None)] * 2),
    "ai-sdk-5.0.277": ("aisdk", "m", [(11, 7, 3, 2, None)] * 3),
    "ai-sdk-6.0.326": ("aisdk", "m", [(11, 7, 3, 2, None)] * 3),
    "ai-sdk-7.0.173-legacy": ("aisdk", "m", [(11, 7, 3, 2, None)] * 3),
    "ai-sdk-7.0.173": ("genai", "m", [(11, 7, 3, 0, None)] * 3),
    "traceloop-sdk-0.62.4": ("traceloop", "m", [(11, 7, 3, 2, None)] * 2),
    "langchain-core-1.8.3-traceloop-0.62.4": ("traceloop", "unknown", [(11, 7, 3, 0, None)]),
    "copilot": ("copilot", "m", [(11, 7, 3, 2, None)] * 2),
    "pydantic-ai-2.68.0": ("genai", "m", [(11, 7, 3, 2, None)] * 2),
    "google-adk-2.13.0": ("genai", "openai/m", [(11, 9, 3, 2, None)] * 2),
    "strands-agents-1.62.0": ("genai", "m", [(11, 7, 3, 0, None)] * 2),
    "openai-agents-0.24.0-otel-v2-0.1.0": ("genai", "m", [(11, 7, 0, 0, None)] * 2),
    "openai-agents-0.24.0-openinference-2.6.0": ("openinference", "m", [(11, 7, 0, 0, None)] * 2),
    "langchain-1.5.2-openinference-0.1.80": ("openinference", "m", [(11, 7, 3, 2, None)] * 2),
    "litellm-1.110.2": ("litellm", "m", [(11, 7, 0, 0, None)]),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_sample_with_one_call_is_one_row_with_what_its_producer_says(name):
    (row,) = read(sample(name)).calls

    assert told(row) == CALLS[name]
    assert row.source == common_pb2.SOURCE_OTLP
    assert row.engine == REQUESTS[name][0]
    assert row.redaction_version


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_are_counted_once_and_alike(name):
    engine, model, requests = REQUESTS[name]
    rows = read(sample(name)).costs

    assert [spent(row) for row in rows] == requests
    assert {(row.engine, row.model, row.source) for row in rows} <= {(engine, model, common_pb2.SOURCE_OTLP)}
    assert not any(row.usage_incomplete or row.error for row in rows)


def test_every_sample_is_understood_and_tested_here():
    """The one with both signals of Claude Code is tested by itself."""
    assert set(SAMPLES) - set(REQUESTS) == {"claude-code-2.1.197-logs-and-traces-details"}
    assert [read(sample(name)).not_understood for name in SAMPLES] == [()] * len(SAMPLES)


def test_claude_with_details_shows_the_command_and_no_more():
    (by_log, by_span) = read(sample("claude-code-2.1.197-logs-and-traces-details")).calls

    assert by_log.args_summary == f'{{"command":"{HELLO}","description":{{"type":"string","bytes":9}}}}'
    assert (by_log.created_at_ms, by_log.duration_ms) == (1_795_839_611_909 - 97, 97)
    assert by_log.trace_id == by_span.trace_id == "76f41500004b98c328c9c1be93e2de65"
    assert by_span.args_summary == f'{{"full_command":"{HELLO}"}}'
    assert (by_span.created_at_ms, by_span.duration_ms, by_span.outcome) == (1_795_839_611_812, 97, OK)
    assert (by_span.session_id, by_span.provider_call_id) == (by_log.session_id, by_log.provider_call_id)


def test_spans_of_claude_have_its_requests_with_a_price_of_the_list():
    rows = read_spans(sample("claude-code-2.1.197-logs-and-traces-details").spans).costs

    assert [spent(row)[:4] for row in rows] == [(16, 7, 3, 0)] * 2
    assert [row.duration_ms for row in rows] == [58, 11]
    assert all(row.cost_micros > 0 for row in rows)


def test_a_failed_call_has_the_type_of_its_error_alone():
    (claude,) = read(sample("claude-code-2.1.197-failed-bash")).calls
    ok, boom = read(sample("langchain-1.5.2-openinference-0.1.80")).calls

    assert claude.error == "the agent tells of ShellError"
    assert (ok.outcome, ok.session_id, ok.args_summary) == (OK, "s-1", NUMBERS)
    assert (boom.outcome, boom.error) == (FAILED, "the agent tells of ValueError")
    assert (boom.session_id, boom.tool_name) == ("a1a72c630a6f145929b33fd479f4f882", "boom")


def test_copilot_has_the_exit_code():
    (row,) = read(sample("copilot")).calls

    assert row.HasField("exit_code")
    assert row.exit_code == 0
    assert [row.HasField("exit_code") for name in CALLS if name != "copilot" for row in read(sample(name)).calls] == [
        False
    ] * (len(CALLS) - 1)


def test_a_call_has_its_model_where_the_producer_says_so():
    assert [row.model for row in read(sample("codex-0.171.0")).calls] == ["m"]
    assert {row.model for name in CALLS if name != "codex-0.171.0" for row in read(sample(name)).calls} == {""}


def test_the_producers_own_numbers_are_handed_on():
    claude = read(sample("claude-code-2.1.197-failed-bash")).sequence
    codex = read(sample("codex-0.171.0")).sequence

    assert [(number.stream, number.number) for number in claude] == [
        ("claude event.sequence", number) for number in (9, 11, 13, 14, 17)
    ]
    assert {number.session_id for number in claude} == {"496cc19c-4e49-44c9-a08c-993ec4b3905e"}
    assert [tuple(number) for number in codex] == [
        ("ecc63111-208b-465a-88ad-0e1d6ef2856f", "codex tool_result_seq", 1, "")
    ]
    assert all(number.counted_by for number in claude)


def test_the_ledger_takes_every_row():
    readings = [read(sample(name)) for name in SAMPLES]
    request = audit_pb2.RecordRequest(
        row_version=ROW_VERSION,
        tool_calls=[row for reading in readings for row in reading.calls],
        model_requests=[row for reading in readings for row in reading.costs],
    )

    assert list(read_batch(request, now_ms=1_795_840_000_000).rejections) == []
    ids = [row.id for row in request.tool_calls] + [row.id for row in request.model_requests]
    assert len(set(ids)) == len(ids)


def test_a_call_of_the_agents_sdk_that_returned_nothing_is_no_success():
    """So it tells of a call that a person refused."""
    export = sample("openai-agents-0.24.0-openinference-2.6.0")
    assert [row.outcome for row in read(export).calls] == [OK]
    for scope in export.spans.scope_spans:
        for span in scope.spans:
            for item in span.attributes:
                if item.key == "output.value":
                    item.key = "another"
    assert [row.outcome for row in read(export).calls] == [common_pb2.OUTCOME_INTERRUPTED]


@pytest.mark.parametrize("name", ["claude-code-2.1.197-logs", "codex-0.171.0", "gemini", "qwen-code"])
def test_an_event_may_have_its_name_in_the_records_own_field(name):
    """As OpenTelemetry has it since the attribute is deprecated."""
    export = sample(name)
    for scope in export.logs.scope_logs:
        for record in scope.log_records:
            (event,) = (item.value.string_value for item in record.attributes if item.key == "event.name")
            record.event_name = f"claude_code.{event}" if name.startswith("claude") else event
            put(record.attributes, event__name=None)

    assert read(export) == read(sample(name))
