"""What a turn on Claude's program leaves on the record: a row for each call, however it ended, and no content."""

import asyncio

import pytest
from onrecord.common.v1 import common_pb2

from gateway_svc.errors import EngineError, EngineProtocolError
from tests.engines_claude.stage import Stage
from tests.support.claude_cli import (
    BASH_DONE,
    MODEL,
    Line,
    api_error,
    init,
    message,
    result,
    spent,
    tool_result,
    tool_use,
)

END = result({MODEL: spent(2, 0.00108)})
SENTINEL = "zebra-7f3a9c-content"


def play_call(stage: Stage, use: Line, *lines: Line) -> None:
    stage.play([init(), *message("msg_1", "", [use]), *lines, *message("msg_2", "Done"), END])


async def test_each_event_tells_the_step_that_it_happened_in(stage):
    play_call(stage, tool_use("toolu_1", "Bash", {"command": "true"}), tool_result("toolu_1", "ok", detail=BASH_DONE))
    await stage.run()
    assert [(event.step, event.WhichOneof("event")) for event in stage.events] == [
        (1, "tool_call_started"),
        (1, "step_finished"),
        (1, "tool_call_finished"),
        (2, "text_delta"),
        (2, "step_finished"),
    ]


async def test_a_call_has_its_intent_its_row_and_its_events_under_one_id(stage):
    play_call(stage, tool_use("toolu_1", "Bash", {"command": "true"}), tool_result("toolu_1", "ok", detail=BASH_DONE))
    await stage.run()
    (intent,), (row,) = stage.ledger.intents, stage.ledger.calls
    [started], [finished] = stage.of_kind("tool_call_started"), stage.of_kind("tool_call_finished")
    assert intent.id == row.id == started.tool_call_id == finished.tool_call_id
    assert (row.session_id, row.turn_id, row.engine, row.model) == ("session-1", "turn-1", "claude", MODEL)
    assert (row.tool_name, row.provider_call_id, row.outcome) == ("Bash", "toolu_1", common_pb2.OUTCOME_SUCCEEDED)
    assert row.created_at_ms >= intent.created_at_ms > 0
    assert (row.exit_code, row.result_bytes) == (0, 2)
    assert row.HasField("exit_code")
    assert not row.HasField("error")
    assert (intent.times_observed, row.times_observed) == (True, True)
    assert stage.of_kind("tool_call_started")[0].args_summary == intent.args_summary


@pytest.mark.long
async def test_its_time_is_from_the_call_to_its_result(stage):
    use = tool_use("toolu_1", "Bash", {"command": "true"})
    play_call(stage, use, {"do": "sleep", "seconds": 1.0}, tool_result("toolu_1", "ok"))
    await stage.run()
    (row,) = stage.ledger.calls
    assert row.duration_ms >= 250, "on a busy machine the call is read late, and its result is not"
    assert row.created_at_ms == stage.ledger.intents[0].created_at_ms


DENIED = {"type": "system", "subtype": "permission_denied", "tool_name": "Bash", "tool_use_id": "toolu_1"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "lines", "outcome", "exit_code", "http_status"),
    [
        ("Bash", [tool_result("toolu_1", "Exit code 3\nhi", error=True)], "SUCCEEDED", 3, None),
        ("Read", [tool_result("toolu_1", "Exit code 3\nhi", error=True)], "FAILED", None, None),
        (
            "Bash",
            [tool_result("toolu_1", "Exit code 143\nCommand timed out after 1s", error=True)],
            "TIMED_OUT",
            None,
            None,
        ),
        ("Bash", [DENIED, tool_result("toolu_1", "requires approval", error=True)], "DENIED", None, None),
        (
            "Bash",
            [tool_result("toolu_1", "Claude requested permissions to use Bash", error=True)],
            "DENIED",
            None,
            None,
        ),
        (
            "Bash",
            [tool_result("toolu_1", "", detail={**BASH_DONE, "returnCodeInterpretation": "No matches found"})],
            "SUCCEEDED",
            None,
            None,
        ),
        ("Bash", [tool_result("toolu_1", "", detail={**BASH_DONE, "backgroundTaskId": "b"})], "SUCCEEDED", None, None),
        ("WebFetch", [tool_result("toolu_1", "page", detail={"code": 404, "bytes": 9})], "SUCCEEDED", None, 404),
        ("Read", [tool_result("toolu_1", "File does not exist.", error=True)], "FAILED", None, None),
        (
            "Nope",
            [
                tool_result(
                    "toolu_1", "<tool_use_error>Error: No such tool available: Nope</tool_use_error>", error=True
                )
            ],
            "INVALID_CALL",
            None,
            None,
        ),
        (
            "Read",
            [tool_result("toolu_1", "<tool_use_error>InputValidationError: Read failed</tool_use_error>", error=True)],
            "INVALID_CALL",
            None,
            None,
        ),
    ],
)
async def test_how_a_call_ended(stage, name, lines, outcome, exit_code, http_status):
    """By the texts and fields that the program itself writes for each."""
    play_call(stage, tool_use("toolu_1", name, {}), *lines)
    await stage.run()
    (row,) = stage.ledger.calls
    assert row.outcome == common_pb2.Outcome.Value(f"OUTCOME_{outcome}")
    assert (row.exit_code if row.HasField("exit_code") else None) == exit_code
    assert (row.http_status if row.HasField("http_status") else None) == http_status
    assert row.HasField("error") == (outcome != "SUCCEEDED")


async def test_what_the_model_was_not_shown_in_full_says_so(stage):
    shown = "<persisted-output>\nOutput too large (1.2MB). Full output saved to: /x\n\nPreview (first 2KB):\n1\n2"
    play_call(stage, tool_use("toolu_1", "Bash", {}), tool_result("toolu_1", shown))
    await stage.run()
    assert stage.ledger.calls[0].result_truncated


async def test_a_picture_counts_by_its_size_and_is_not_kept(stage):
    picture = [{"type": "text", "text": "here"}, {"type": "image", "source": {"type": "base64", "data": "A" * 5000}}]
    play_call(stage, tool_use("toolu_1", "Read", {}), tool_result("toolu_1", picture))
    await stage.run()
    assert stage.ledger.calls[0].result_bytes == 5004
    assert stage.history[2].text == "here\n[image]"


async def test_a_call_whose_result_never_came_is_interrupted(stage):
    """The program died: whether the tool finished is not known."""
    stage.play([init(), *message("msg_1", "", [tool_use("toolu_1", "Bash", {})]), {"do": "kill"}])
    with pytest.raises(EngineProtocolError, match="signal 9 in the middle"):
        await stage.run()
    (row,) = stage.ledger.calls
    assert row.outcome == common_pb2.OUTCOME_INTERRUPTED
    assert stage.of_kind("tool_call_finished")[0].outcome == common_pb2.OUTCOME_INTERRUPTED
    assert stage.history[-1].text == "The call's result never came."


async def test_a_call_without_result_in_a_run_that_ended_well_is_interrupted_too(stage):
    play_call(stage, tool_use("toolu_1", "Bash", {}))
    await stage.run()
    assert stage.ledger.calls[0].outcome == common_pb2.OUTCOME_INTERRUPTED


async def test_a_cancelled_turn_s_calls_are_cancelled(stage):
    """One that the program reports as stopped, and one of which nothing more is heard."""
    uses = [tool_use("toolu_1", "Bash", {}), tool_use("toolu_2", "Bash", {})]
    stage.play(
        [init(), *message("msg_1", "", uses), {"do": "wait"}],
        on_interrupt=[tool_result("toolu_1", "The user doesn't want to proceed", error=True)],
    )
    turn = stage.turn()
    task = await stage.start(turn, stage.runner())
    await stage.until(lambda: len(stage.ledger.intents) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [row.outcome for row in stage.ledger.calls] == [common_pb2.OUTCOME_CANCELLED] * 2


async def test_a_result_for_no_call_and_a_call_told_twice_leave_one_row(stage):
    use = tool_use("toolu_1", "Read", {})
    results = [tool_result(tool_use_id, "x") for tool_use_id in ("toolu_9", "toolu_1", "toolu_1")]
    stage.play(
        [
            *(init(), *message("msg_1", "", [use, use]), *results),
            *message("msg_2", "Done"),
            END,
        ]
    )
    await stage.run()
    assert len(stage.ledger.calls) == len(stage.ledger.intents) == 1


async def test_no_content_reaches_a_row_an_event_of_a_call_or_a_log_line(stage, capsys):
    use = tool_use("toolu_1", "Mystery", {"payload": SENTINEL})
    lines = [tool_result("toolu_1", f"failed on {SENTINEL}", error=True), {"do": "stderr", "text": SENTINEL}]
    lines += [{"do": "raw", "text": f"debug: {SENTINEL}"}, {"type": "assistant", "message": SENTINEL}]
    play_call(stage, use, *lines)
    await stage.run()
    recorded = [*stage.ledger.intents, *stage.ledger.calls, *stage.ledger.costs]
    told = [*stage.of_kind("tool_call_started"), *stage.of_kind("tool_call_finished")]
    assert recorded
    assert told
    assert SENTINEL not in "".join(str(one) for one in [*recorded, *told])
    captured = capsys.readouterr()
    assert "claude.line_skipped" in captured.out + captured.err
    assert SENTINEL not in captured.out + captured.err


async def test_without_audit_the_client_hears_of_calls_and_of_no_argument(stage):
    use = tool_use("toolu_1", "Bash", {"command": SENTINEL})
    play_call(stage, use, tool_result("toolu_1", "Exit code 3", error=True))
    await stage.run(runner=stage.runner(audit=False))
    (started,), (finished,) = stage.of_kind("tool_call_started"), stage.of_kind("tool_call_finished")
    assert (started.tool_name, started.args_summary) == ("Bash", "")
    assert (finished.tool_call_id, finished.outcome, finished.exit_code) == (
        started.tool_call_id,
        common_pb2.OUTCOME_SUCCEEDED,
        3,
    )
    assert stage.totals.tool_calls == 1
    assert stage.ledger.calls == stage.ledger.costs == []


@pytest.mark.parametrize("code", ["invalid_request", "server_error", "unknown", SENTINEL])
async def test_no_word_of_a_failed_request_reaches_the_record_or_a_log_line(stage, capsys, code):
    """The caller is told it; the record has our name for it, and the HTTP status."""
    retry = {"type": "system", "subtype": "api_retry", "attempt": 1, "error": code, "error_status": SENTINEL}
    said = f"API Error: 400 {SENTINEL}"
    lines = [init(), retry, api_error(code, said)]
    stage.play([*lines, result({}, error=True, subtype=SENTINEL, result=said, api_error_status=400, errors=[SENTINEL])])
    with pytest.raises(EngineError, match=SENTINEL):
        await stage.run()
    (row,) = stage.ledger.costs
    assert row.error.endswith(", HTTP 400")
    captured = capsys.readouterr()
    assert SENTINEL not in f"{row}{captured.out}{captured.err}"
