"""No content comes in: what a table does not name is not read, and what it names is shown as rows show it."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from intake_svc.dialects import (
    DIALECTS,
    aisdk,
    claude,
    codex,
    conventions,
    gemini,
    litellm,
    opencode,
    openinference,
    traceloop,
)
from intake_svc.dialects.base.table import Table, named
from recording import redact
from tests.intake_svc.dialects.exports import SAMPLES, Export, log_records, put, read, sample, spans_with

CANARY = "the canary sang of what nobody may keep"
SECRET = "sk-ant-api03-Zq8Lr2Vx7Nf4Tb9Kc1Wm6Hd3"

_KEPT_OF_RESOURCES = {"service.name", "service.version"}
_EXCEPTION = {"exception.type"}


def tables_of(name: str) -> tuple[Table, ...]:
    """The tables by which a sample is read."""
    for start, tables in {
        "claude": (claude.LOGS, claude.SPANS),
        "codex": (codex.LOGS,),
        "gemini": (gemini.LOGS,),
        "qwen": (gemini.LOGS,),
        "opencode": (opencode.SPANS,),
        "litellm": (litellm.SPANS,),
        "ai-sdk-7.0.173-legacy": (aisdk.SPANS,),
        "ai-sdk-7": (conventions.SPANS,),
        "ai-sdk": (aisdk.SPANS,),
        "langchain-core": (traceloop.SPANS,),
        "traceloop": (traceloop.SPANS,),
        "langchain": (openinference.SPANS,),
        "openai-agents-0.24.0-openinference": (openinference.SDK_SPANS,),
    }.items():
        if name.startswith(start):
            return tables
    return (conventions.SPANS,)


def attribute_lists(export: Export) -> Iterator[tuple[str, Any]]:
    """Every list of attributes, and of what it is."""
    for resource in (export.logs.resource, export.spans.resource):
        yield "resource", resource.attributes
    for scope in export.logs.scope_logs:
        yield "scope", scope.scope.attributes
        for record in scope.log_records:
            yield "record", record.attributes
    for spans in export.spans.scope_spans:
        yield "scope", spans.scope.attributes
        for span in spans.spans:
            yield "span", span.attributes
            for event in span.events:
                yield f"event {event.name}", event.attributes
            for link in span.links:
                yield "link", link.attributes


def is_read(place: str, key: str, names: Iterable[str]) -> bool:
    """Whether a table, or the reading of all spans, names an attribute."""
    match place:
        case "resource":
            return key in _KEPT_OF_RESOURCES
        case "record" | "span":
            return key in names
        case "event exception":
            return key in _EXCEPTION
        case "event gen_ai.tool.message":
            return key == "content"
    return False


def sing(export: Export, names: Iterable[str]) -> None:
    """Puts the canary in every place that is not to be read."""
    for place, attributes in attribute_lists(export):
        for item in attributes:
            if not is_read(place, item.key, names):
                item.value.CopyFrom(AnyValue(string_value=CANARY))
        attributes.add(key="canary", value=AnyValue(string_value=CANARY))
        attributes.add(key=CANARY, value=AnyValue(string_value=CANARY))
    for scope in export.logs.scope_logs:
        for record in scope.log_records:
            record.body.string_value = record.severity_text = record.event_name = CANARY
    for spans in export.spans.scope_spans:
        for span in spans.spans:
            span.name = span.status.message = span.trace_state = CANARY
            span.events.add(name=CANARY).attributes.add(key=CANARY, value=AnyValue(string_value=CANARY))
            span.links.add(trace_state=CANARY)


def said(export: Export) -> str:
    """All that a reading of an export says, as one text."""
    reading = read(export)
    rows = (*reading.calls, *reading.costs, *reading.intents)
    shown = [row.SerializeToString().decode("utf-8", "replace") for row in rows]
    return "\n".join([*shown, *reading.not_understood, *map(str, reading.sequence)])


@pytest.mark.parametrize("name", SAMPLES)
def test_what_no_table_names_is_not_read(name):
    """With the canary in its place every row stays as it is, byte for byte."""
    export = sample(name)
    names = frozenset[str]().union(*map(named, tables_of(name)))
    before = read(export)

    sing(export, names)

    assert CANARY in str(export.spans) + str(export.logs)
    assert read(export) == before


@pytest.mark.long
@pytest.mark.parametrize("name", SAMPLES)
def test_a_sentence_in_the_place_of_any_value_is_in_no_row(name):
    """Also where the value is one that rows have: an id, a name, a model, a time, a word."""
    export = sample(name)
    for item in [item for _, items in list(attribute_lists(export)) for item in items]:
        before = AnyValue()
        before.CopyFrom(item.value)
        item.value.CopyFrom(AnyValue(string_value=SECRET))
        assert SECRET not in said(export), item.key
        if item.key != "full_command":  # a command is shown
            item.value.CopyFrom(AnyValue(string_value=CANARY))
            assert "canary" not in said(export), item.key
        item.value.CopyFrom(before)


@pytest.mark.long
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("person", ["alice.w+agents@example.com", "https://alice:hunter2@models.internal/v1"])
def test_what_names_a_person_in_the_place_of_any_value_is_in_no_row(name, person):
    """Applications make ids of sessions of e-mail addresses, and names of models of URLs."""
    export = sample(name)
    for item in [item for _, items in list(attribute_lists(export)) for item in items]:
        if item.key not in ("full_command", "file_path"):  # which are shown
            before = AnyValue()
            before.CopyFrom(item.value)
            item.value.CopyFrom(AnyValue(string_value=person))
            assert "alice" not in said(export), item.key
            item.value.CopyFrom(before)


def test_a_message_of_a_tool_is_read_of_strands_alone():
    """By the conventions its content is what the tool returned, and no argument's name may come of that."""
    export = sample("pydantic-ai-2.68.0")
    (tool,) = spans_with(export, "gen_ai.operation.name", "execute_tool")
    put(tool.attributes, gen_ai__tool__call__arguments=None, tool_arguments=None)
    put(tool.events.add(name="gen_ai.tool.message").attributes, content='{"canary": "sang"}')

    assert read(export).calls[0].args_summary == ""
    put(tool.attributes, gen_ai__provider__name=None, gen_ai__system="strands-agents")
    assert read(export).calls[0].args_summary


def arguments_of(name: str, export: Export) -> Callable[[str, str], None]:
    """Sets a call's tool and its arguments."""

    def set_(tool: str, arguments: str) -> None:
        match name:
            case "claude-code-2.1.197-logs":
                put(log_records(export, "tool_result")[0].attributes, tool_name=tool, tool_input=arguments)
            case "codex-0.171.0":
                put(log_records(export, "codex.tool_result")[0].attributes, tool_name=tool, arguments=arguments)
            case "gemini":
                record = log_records(export, "gemini_cli.tool_call")[0]
                put(record.attributes, function_name=tool, function_args=arguments)
            case "qwen-code":
                record = log_records(export, "qwen-code.tool_call")[0]
                put(record.attributes, function_name=tool, function_args=arguments)
            case "opencode-1.18.33" | "ai-sdk-6.0.326":
                span = spans_with(export, "ai.operationId", "ai.toolCall")[0]
                put(span.attributes, ai__toolCall__name=tool, ai__toolCall__args=arguments)
            case "copilot" | "pydantic-ai-2.68.0":
                span = spans_with(export, "gen_ai.operation.name", "execute_tool")[0]
                put(span.attributes, gen_ai__tool__name=tool, gen_ai__tool__call__arguments=arguments)
            case "traceloop-sdk-0.62.4":
                span = spans_with(export, "traceloop.span.kind", "tool")[0]
                put(span.attributes, gen_ai__tool__name=tool, traceloop__entity__input=arguments)
            case _:
                span = spans_with(export, "openinference.span.kind", "TOOL")[0]
                put(span.attributes, tool__name=tool, input__value=arguments)

    return set_


SPEAKERS = {
    "claude": "claude-code-2.1.197-logs",
    "codex": "codex-0.171.0",
    "gemini": "gemini",
    "qwen": "qwen-code",
    "opencode": "opencode-1.18.33",
    "copilot": "copilot",
    "aisdk": "ai-sdk-6.0.326",
    "genai": "pydantic-ai-2.68.0",
    "traceloop": "traceloop-sdk-0.62.4",
    "openinference": "openai-agents-0.24.0-openinference-2.6.0",
}


@pytest.mark.parametrize("engine", SPEAKERS)
def test_arguments_that_are_content_are_shown_by_type_and_size(engine):
    """Of each tool that a dialect knows, and of those that it does not know, ours among them."""
    (dialect,) = (dialect for dialect in DIALECTS if dialect.engine == engine)
    content = ("content", "old_string", "new_string", "prompt", "description", "query", "body", "input", "text", "code")
    for tool in (*dialect.tools, "mcp__notes__add", "unheard_of"):
        export = sample(SPEAKERS[engine])
        arguments = dict.fromkeys(content, CANARY) | {CANARY: CANARY, "deep": {"er": [CANARY]}}
        arguments_of(SPEAKERS[engine], export)(tool, json.dumps(arguments))
        row = read(export).calls[0]
        assert row.tool_name == tool
        assert "canary" not in str(row)
        assert f'"content":{{"type":"string","bytes":{len(CANARY)}}}' in row.args_summary


@pytest.mark.parametrize("engine", SPEAKERS)
def test_a_tool_of_ours_is_not_known_by_its_name_in_another_agent(engine):
    """`bash` of an application is not the command that our `bash` shows, unless the dialect says so."""
    (dialect,) = (dialect for dialect in DIALECTS if dialect.engine == engine)
    for tool in {"bash", "read", "webfetch", "Bash", "shell"} - set(dialect.tools):
        export = sample(SPEAKERS[engine])
        shown = {"command": CANARY, "path": CANARY, "url": CANARY}
        arguments_of(SPEAKERS[engine], export)(tool, json.dumps(shown))
        assert "canary" not in str(read(export).calls)


@pytest.mark.parametrize(
    ("engine", "tool", "arguments", "summary"),
    [
        ("claude", "Bash", {"command": "ls -l src"}, {"command": "ls -l src"}),
        ("claude", "Read", {"file_path": "/w/a.py", "limit": 5}, {"file_path": "/w/a.py", "limit": 5}),
        ("claude", "WebFetch", {"url": "https://x.org/a?q=1"}, {"url": "https://x.org/a?q=*"}),
        ("codex", "shell", {"command": ["bash", "-lc", "git status"]}, {"command": "git status"}),
        ("codex", "shell", {"command": ["cat", "a b"]}, {"command": "cat 'a b'"}),
        ("codex", "exec_command", {"cmd": "make"}, {"cmd": "make"}),
        ("gemini", "run_shell_command", {"command": "make"}, {"command": "make"}),
        ("qwen", "read_file", {"file_path": "/w/a.py"}, {"file_path": "/w/a.py"}),
        ("opencode", "read", {"filePath": "/w/a.py"}, {"filePath": "/w/a.py"}),
        ("copilot", "bash", {"command": "make", "description": "x"}, {"command": "make"}),
        ("genai", "read_file", {"file_path": "/w/a.py"}, {}),
    ],
)
def test_arguments_that_tell_what_was_done_are_shown(engine, tool, arguments, summary):
    export = sample(SPEAKERS[engine])
    arguments_of(SPEAKERS[engine], export)(tool, json.dumps(arguments))
    (row,) = read(export).calls

    shown = json.loads(row.args_summary)
    assert {name: value for name, value in shown.items() if not isinstance(value, dict)} == summary


@pytest.mark.parametrize(
    ("kept", "summary"),
    [("names", '{"command":"git commit"}'), ("none", '{"$arguments":{"count":1,"bytes":35}}')],
)
def test_what_a_deployment_keeps_of_arguments_holds_for_other_agents_too(kept, summary):
    export = sample("claude-code-2.1.197-logs")
    arguments_of("claude-code-2.1.197-logs", export)("Bash", json.dumps({"command": "git commit a.py b.py"}))
    redact.keep_arguments(kept)
    try:
        (row,) = read(export).calls
    finally:
        redact.keep_arguments("shown")

    assert row.args_summary == summary


def test_a_secret_in_a_command_is_redacted():
    export = sample("claude-code-2.1.197-logs")
    command = f"curl -H 'Authorization: Bearer {SECRET}' https://x.org"
    arguments_of("claude-code-2.1.197-logs", export)("Bash", json.dumps({"command": command}))
    (row,) = read(export).calls

    assert SECRET not in str(row)
    assert "curl" in row.args_summary


def test_a_tool_whose_name_is_a_sentence_is_unknown():
    export = sample("codex-0.171.0")
    arguments_of("codex-0.171.0", export)(CANARY, "{}")
    (row,) = read(export).calls

    assert row.tool_name == "unknown"
    assert json.loads(row.args_summary) == {"$tool": {"type": "string", "bytes": len(CANARY)}}
