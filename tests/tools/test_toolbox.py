"""The toolbox: whatever a model or a tool does, there is a result, and it quotes nothing."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
import structlog
from onrecord.common.v1 import common_pb2
from pydantic import BaseModel, Field

from gateway_svc.errors import SettingsError
from gateway_svc.tools import ToolContext, ToolError
from gateway_svc.tools.arguments import Arguments
from gateway_svc.tools.files import Files
from gateway_svc.tools.toolbox import Toolbox, denied
from recording.calls import ToolCall, ToolResult

SECRET = "sk-canary-5f0c"


CONTEXT = ToolContext(Files(Path("/")))


class Inner(BaseModel):
    depth: int = 0


class ProbeArguments(Arguments):
    """For the reader of the code."""

    title: str = Field(description="A field with the name of a schema's keyword.")
    count: int | None = Field(None, ge=1)
    inner: Inner | None = None


class Probe:
    """A tool that does what the test says."""

    name = "probe"
    description = "Probes."
    parameters = ProbeArguments

    def __init__(self, act: Any = None) -> None:
        self.act = act
        self.calls: list[ProbeArguments] = []

    async def run(self, arguments: ProbeArguments, context: ToolContext) -> ToolResult:
        self.calls.append(arguments)
        if self.act is None:
            return ToolResult("done", result_bytes=4)
        result = self.act()
        answer: ToolResult = await result if asyncio.iscoroutine(result) else result
        return answer


def call(arguments: str, name: str = "probe") -> ToolCall:
    return ToolCall("row-1", "call-1", name, arguments)


async def run(tool: Probe, arguments: str = '{"title": "t"}', **limits: Any) -> ToolResult:
    return await Toolbox([tool], **limits).run(call(arguments), CONTEXT)


def test_a_definition_is_plain_json_schema():
    """No references, no nulls, no titles; a field that is called title stays."""
    (definition,) = Toolbox([Probe()]).definitions()
    assert definition.parameters == {
        "type": "object",
        "properties": {
            "title": {"type": "string", "description": "A field with the name of a schema's keyword."},
            "count": {"type": "integer", "minimum": 1},
            "inner": {"type": "object", "properties": {"depth": {"type": "integer", "default": 0}}},
        },
        "required": ["title"],
        "additionalProperties": False,
    }


async def test_good_arguments_reach_the_tool():
    tool = Probe()
    result = await run(tool, '{"title": "t", "count": "3", "inner": null}')
    assert (result.text, result.outcome, result.error) == ("done", common_pb2.OUTCOME_SUCCEEDED, None)
    assert tool.calls == [ProbeArguments(title="t", count=3)]


MALFORMED = {
    "cut off": '{"title": "' + SECRET,
    "no JSON": SECRET,
    "an array": f'["{SECRET}"]',
    "a string": f'"{SECRET}"',
    "null": "null",
    "two values": f'{{"title": "{SECRET}"}} {{}}',
    "a field twice": f'{{"title": "{SECRET}", "title": "b"}}',
    "a field twice inside": f'{{"title": "{SECRET}", "inner": {{"depth": 1, "depth": 2}}}}',
    "NaN": f'{{"title": "{SECRET}", "count": NaN}}',
    "Infinity": f'{{"title": "{SECRET}", "count": -Infinity}}',
    "arrays to the end": "[" * 200_000,
    "objects to the end": '{"a":' * 200_000,
    "a number without end": f'{{"title": "{SECRET}", "count": {"9" * 100_000}}}',
    "a number of the wrong kind": f'{{"title": "{SECRET}", "count": 1e999}}',
    "single quotes": f"{{'title': '{SECRET}'}}",
    "a trailing comma": f'{{"title": "{SECRET}",}}',
    "a missing field": "{}",
    "nothing": "",
    "a wrong type": f'{{"title": {{"{SECRET}": 1}}}}',
    "too small": f'{{"title": "{SECRET}", "count": 0}}',
    "text for a number": f'{{"title": "t", "count": "{SECRET}"}}',
    "an unknown field": f'{{"title": "t", "{SECRET}": 1}}',
    "a surrogate": '{"title": "\\ud800"}',
    "too long": '{"title": "' + "x" * 5_000_000 + '"}',
}


@pytest.mark.parametrize("arguments", MALFORMED.values(), ids=MALFORMED.keys())
async def test_unusable_arguments_run_nothing_and_are_told_without_quoting_them(arguments: str):
    tool = Probe()
    result = await run(tool, arguments)
    assert result.outcome == common_pb2.OUTCOME_INVALID_CALL
    assert tool.calls == []
    assert result.error
    assert len(result.error) < 500
    assert SECRET not in result.error + result.text


async def test_an_error_names_the_field_and_what_is_wrong_with_it():
    result = await run(Probe(), '{"count": 0, "other": 1}')
    assert result.error == (
        "title: Field required; count: Input should be greater than or equal to 1; "
        "unknown field (the fields are title, count, inner)"
    )


async def test_an_unknown_tool_is_told_which_there_are():
    result = await Toolbox([Probe()]).run(call("{}", name=SECRET), CONTEXT)
    assert result.outcome == common_pb2.OUTCOME_INVALID_CALL
    assert result.text == "Error: there is no such tool; the tools are probe"
    assert result.error == "there is no such tool among the 1 that are offered"


async def test_a_tools_own_error_is_the_result():
    def act() -> ToolResult:
        raise ToolError("it is closed", exit_code=3, text="shown", result_bytes=7)

    result = await run(Probe(act))
    assert (result.outcome, result.error, result.text) == (common_pb2.OUTCOME_FAILED, "it is closed", "shown")
    assert (result.exit_code, result.result_bytes) == (3, 7)


async def test_an_unexpected_exception_is_told_and_logged_by_its_type_only():
    """R12: an exception's text may quote a file's content."""

    def act() -> ToolResult:
        raise KeyError(SECRET)

    with structlog.testing.capture_logs() as logs:
        result = await run(Probe(act))
    assert result.outcome == common_pb2.OUTCOME_FAILED
    assert result.error == "the tool failed unexpectedly (KeyError)"
    assert [(entry["event"], entry["error_type"]) for entry in logs] == [("tool.failed", "KeyError")]
    assert SECRET not in result.text + json.dumps(logs)


async def test_a_tool_that_runs_too_long_is_ended():
    ended = []

    async def act() -> ToolResult:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(True)
        return ToolResult("late")

    result = await run(Probe(act), timeout_seconds=0.05)
    assert result.outcome == common_pb2.OUTCOME_TIMED_OUT
    assert result.error == "the call ran longer than 0.05 s and was ended"
    assert ended == [True]


async def test_a_tools_own_timeout_error_is_a_failure_not_a_time_out():
    def act() -> ToolResult:
        raise TimeoutError

    assert (await run(Probe(act))).outcome == common_pb2.OUTCOME_FAILED


async def test_cancellation_propagates_after_the_tools_cleanup():
    begun, cleaned = asyncio.Event(), asyncio.Event()

    async def act() -> ToolResult:
        begun.set()
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.01)
            cleaned.set()
        return ToolResult("late")

    task = asyncio.create_task(run(Probe(act)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned.is_set()


async def test_each_result_says_when_it_began_and_how_long_it_took():
    async def act() -> ToolResult:
        await asyncio.sleep(0.05)
        return ToolResult("done")

    before = time.time_ns() // 1_000_000
    result = await run(Probe(act))
    invalid = await run(Probe(), "{")
    assert before <= result.started_at_ms <= invalid.started_at_ms <= time.time_ns() // 1_000_000
    assert result.duration_ms >= 45
    assert invalid.duration_ms >= 0


async def test_a_long_result_is_shown_by_its_head_and_tail():
    text = "head" + "é" * 200_000 + "tail"
    result = await run(Probe(lambda: ToolResult(text)))
    assert result.result_truncated
    assert result.result_bytes == 400_008
    assert result.text.startswith("headé")
    assert result.text.endswith("étail")
    assert "[… 150008 characters left out …]" in result.text
    assert len(result.text) < 50_100


async def test_a_result_of_many_lines_is_cut_too():
    text = "\n".join(str(number) for number in range(10_000))
    result = await run(Probe(lambda: ToolResult(text)), max_lines=10)
    assert result.text == "0\n1\n2\n3\n4\n\n[… 48855 characters left out …]\n9995\n9996\n9997\n9998\n9999"


async def test_a_result_within_the_limits_is_left_alone():
    text = "x" * 49_999 + "\n"
    result = await run(Probe(lambda: ToolResult(text, result_bytes=50_000)))
    assert (result.text, result.result_truncated) == (text, False)


async def test_what_no_message_can_carry_is_replaced():
    result = await run(Probe(lambda: ToolResult("name-\udcff")))
    assert result.text == "name-?"


async def test_a_denied_tool_is_not_offered_and_does_not_run():
    tool = Probe()
    toolbox = Toolbox([tool], policies={"probe": "deny"})
    result = await toolbox.run(call('{"title": "t"}'), CONTEXT)
    assert toolbox.definitions() == []
    assert result.outcome == common_pb2.OUTCOME_DENIED
    assert tool.calls == []


async def test_policies_are_told_and_a_tool_whose_client_was_asked_runs():
    tool = Probe()
    toolbox = Toolbox([tool], policies={"probe": "ask"})
    assert (toolbox.policy("probe"), toolbox.policy("unheard of")) == ("ask", "allow")
    assert len(toolbox.definitions()) == 1
    assert (await toolbox.run(call('{"title": "t"}'), CONTEXT)).outcome == common_pb2.OUTCOME_SUCCEEDED


def test_a_call_can_be_checked_before_its_client_is_asked():
    toolbox = Toolbox([Probe()], policies={"probe": "ask"})
    refused = toolbox.check(call("{}"))
    assert refused is not None
    assert refused.outcome == common_pb2.OUTCOME_INVALID_CALL
    assert toolbox.check(call('{"title": "t"}')) is None


def test_a_denial_has_its_outcome_and_reason():
    result = denied("Not on a Sunday.")
    assert (result.outcome, result.error) == (common_pb2.OUTCOME_DENIED, "Not on a Sunday.")
    assert result.text == "Error: Not on a Sunday."


def test_a_policy_for_a_tool_that_is_not_there_is_refused():
    with pytest.raises(SettingsError, match="a tool policy names prob; the tools are probe"):
        Toolbox([Probe()], policies={"prob": "deny"})
