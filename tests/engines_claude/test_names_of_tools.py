"""The record has the names of the program's own tools and servers, and no name that a model made up."""

import json

from onrecord.common.v1 import common_pb2

from tests.engines_claude.stage import Stage
from tests.support.claude_cli import MODEL, Line, init, message, result, spent, tool_result, tool_use

NO_TOOL = "<tool_use_error>Error: No such tool available</tool_use_error>"


def play(stage: Stage, call: Line, *before: Line, told: Line) -> None:
    lines = [*message("msg_1", tools=[call]), *before, told, *message("msg_2", "Done")]
    stage.play([init(tools=["mcp__notes__add", "a patient's name"]), *lines, result({MODEL: spent(2, 0.001)})])


async def test_a_name_that_a_model_made_up_is_told_by_its_length(stage: Stage) -> None:
    name = "the_patient_has_a_fever"
    play(stage, tool_use("toolu_1", name, {"she_sleeps": 1}), told=tool_result("toolu_1", NO_TOOL, error=True))
    await stage.run()
    (intent,), (row,) = stage.ledger.intents, stage.ledger.calls
    assert (intent.tool_name, row.tool_name, row.outcome) == ("unknown", "unknown", common_pb2.OUTCOME_INVALID_CALL)
    assert json.loads(row.args_summary) == {"$tool": {"type": "string", "bytes": len(name)}, "$more": 1}
    [started], [finished] = stage.of_kind("tool_call_started"), stage.of_kind("tool_call_finished")
    assert started.tool_name == finished.tool_name == "unknown"


async def test_a_tool_that_the_program_lists_is_named(stage: Stage) -> None:
    """What it lists and could be no tool's name is not."""
    for name, shown in (("mcp__notes__add", "mcp__notes__add"), ("a patient's name", "unknown")):
        play(stage, tool_use("toolu_1", name, {"text": "x"}), told=tool_result("toolu_1", "ok"))
        await stage.run()
        assert stage.ledger.calls[-1].tool_name == shown


async def test_a_tool_that_the_program_is_about_to_run_is_named_although_it_was_listed_late(stage: Stage) -> None:
    call = tool_use("toolu_1", "mcp__late__add", {"text": "x"})
    play(stage, call, {"do": "ask", "call": call}, told=tool_result("toolu_1", "ok"))
    await stage.run()
    [row] = stage.ledger.calls
    assert (row.tool_name, row.created_at_ms) == ("mcp__late__add", stage.ledger.intents[0].created_at_ms)
    assert json.loads(row.args_summary) == {"text": {"type": "string", "bytes": 1}}
