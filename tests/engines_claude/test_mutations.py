"""One thing wrong in a good run of lines costs at most that call or block, and never ends as COMPLETED with less."""

import copy
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.engines.claude.memory import Memory
from gateway_svc.engines.claude.run import Run
from gateway_svc.errors import EngineError
from gateway_svc.messages import AssistantMessage
from tests.engines_claude.stage import Stage, list_price
from tests.support.claude_cli import (
    BASH_DONE,
    MODEL,
    Line,
    init,
    message,
    requesting,
    result,
    spent,
    tool_result,
    tool_use,
)

FIRST, LAST = "Looking at it.", "All is well then."
CALLS = {
    "toolu_1": tool_use("toolu_1", "Read", {"file_path": "/w/a"}),
    "toolu_2": tool_use("toolu_2", "Bash", {"command": "ls"}),
}
GOOD: list[Line] = [
    *(init(), requesting(), *message("msg_1", FIRST, list(CALLS.values()), thinking="hm")),
    *(tool_result("toolu_1", "file"), tool_result("toolu_2", "ok", detail=BASH_DONE)),
    *(requesting(), *message("msg_2", LAST), result({MODEL: spent(2, 0.00108)}, result=LAST, stop_reason="end_turn")),
]
"""A run as most are."""
BESIDE: list[Line] = [
    {"type": "control_request", "request_id": "r", "request": {"subtype": "of_tomorrow", "input": {"a": 1}}},
    {"type": "system", "subtype": "permission_denied", "tool_use_id": "toolu_3", "tool_name": "Bash"},
    {"type": "system", "subtype": "api_retry", "attempt": 1, "error": "overloaded", "error_status": 529},
    {"type": "system", "subtype": "background_tasks_changed", "tasks": [{"task_id": "b1", "task_type": "local_bash"}]},
    {
        "type": "rate_limit_event",
        "rate_limit_info": {"status": "allowed", "rateLimitType": "five_hour", "resetsAt": 9, "utilization": 0.5},
    },
]
"""Lines that tell nothing of the two calls and the texts, wherever they stand."""
LAST_TOLD = len(GOOD) - 2
"""How many lines it takes to tell all of the answer: without `message_stop` and the result."""
GONE = object()
ODD = [None, 7, -1.5, "odd", "", [], ["odd"], {}, {"odd": {"a": 1}}, True, GONE]


class Lines:
    """A program that writes these lines and ends well: what ClaudeProcess is to a run."""

    exit_code, stderr_tail, skipped_lines = 0, "", 0

    def __init__(self, lines: list[Line]) -> None:
        self._lines = lines

    async def lines(self) -> AsyncGenerator[Line, None]:
        for line in self._lines:
            yield line

    def send(self, line: Line) -> None:
        pass

    async def until_heard(self) -> None:
        pass

    def close_input(self) -> None:
        pass

    async def end(self, *, interrupt: bool, at_once: bool = False) -> None:
        pass

    async def close(self) -> None:
        pass


def paths(value: Any, so_far: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something can be changed in a line: everywhere but at its root."""
    if so_far:
        yield so_far
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from paths(value[key], (*so_far, key))


def changed(line: Line, path: tuple[Any, ...], to: object) -> Line:
    line = copy.deepcopy(line)
    place: Any = line
    for key in path[:-1]:
        place = place[key]
    if to is GONE:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return line


def mutations() -> Iterator[tuple[str, int, list[Line]]]:
    for number, line in enumerate(GOOD):
        yield "left out", number, GOOD[:number] + GOOD[number + 1 :]
        yield "twice", number, [*GOOD[: number + 1], *GOOD[number:]]
        for path in paths(line):
            for to in ODD:
                yield f"{path} = {to}", number, [*GOOD[:number], changed(line, path, to), *GOOD[number + 1 :]]


def touches(number: int, tool_use_id: str) -> bool:
    """Whether a line tells of a call, in itself or as a piece of the call's block."""
    line = GOOD[number]
    index = {"toolu_1": 2, "toolu_2": 3}[tool_use_id]
    return tool_use_id in str(line) or line.get("event", {}).get("index") == index


async def play(stage: Stage, lines: list[Line], exit_code: int = 0) -> str:
    stage.history.clear()
    stage.ledger.intents.clear()
    stage.ledger.calls.clear()
    stage.ledger.costs.clear()
    turn = stage.turn()
    run = Run(turn, Memory(stage.folder / "memory"), list_price, stage.ledger.audit())
    try:
        process: Any = Lines(lines)
        process.exit_code = exit_code
        return pb.StopReason.Name(await run.drive(process, resumed=False, seconds=60))
    except EngineError:
        return "error"
    finally:
        await stage.gather(turn)


async def test_the_lines_are_good(stage):
    assert await play(stage, GOOD) == "STOP_REASON_COMPLETED"
    assert stage.text() == FIRST + LAST
    assert len(stage.ledger.calls) == 2
    assert [row.usage_incomplete for row in stage.ledger.costs] == [False, False]


@pytest.mark.long
@pytest.mark.parametrize("exit_code", [0, 1, -9])
async def test_a_stream_that_is_cut_at_any_line_is_an_answer_only_if_all_of_it_came(stage, exit_code):
    """Each call that a line has shown has its row, the client's words are the session's, and no bill is of nothing."""
    for number in range(len(GOOD) + 1):
        ended = await play(stage, GOOD[:number], exit_code)
        rows, told = stage.ledger.calls, "".join(event.text for event in stage.of_kind("text_delta"))
        assert (ended == "STOP_REASON_COMPLETED") == (number >= LAST_TOLD and (exit_code == 0 or number == len(GOOD)))
        assert [row.id for row in rows] == [intent.id for intent in stage.ledger.intents]
        shown = [key for key in CALLS if any(key in str(line) for line in GOOD[:number] if line["type"] == "assistant")]
        assert [row.provider_call_id for row in rows] == shown
        for row in rows:
            result_came = any(row.provider_call_id in str(line) for line in GOOD[:number] if line["type"] == "user")
            assert (row.outcome == common_pb2.OUTCOME_SUCCEEDED) == result_came
        kept = "".join(said.text for said in stage.history if isinstance(said, AssistantMessage))
        assert told == kept
        for cost in stage.ledger.costs:
            assert cost.input_tokens or cost.usage_incomplete or cost.error
            assert ended == "STOP_REASON_COMPLETED" or not cost.HasField("cost_micros") or cost.error or rows


@pytest.mark.parametrize("at", range(0, len(GOOD), 5))
async def test_lines_beside_cost_nothing_whatever_is_wrong_with_them(stage, at):
    """Each of them with each one thing wrong, at a place of the run."""
    odd = [changed(line, path, to) for line in BESIDE for path in paths(line) for to in ODD]
    ended = await play(stage, [*GOOD[:at], *odd, *GOOD[at:]])
    assert ended == "STOP_REASON_COMPLETED"
    assert stage.text() == FIRST + LAST
    assert [row.outcome for row in stage.ledger.calls] == [common_pb2.OUTCOME_SUCCEEDED] * 2
    assert sum(row.cost_micros for row in stage.ledger.costs) == 1080


@pytest.mark.long
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.long) for part in range(1, 8))])
async def test_one_thing_wrong_costs_at_most_that(stage, part):
    for at, (what, number, lines) in enumerate(mutations()):
        if at % 8 != part:
            continue
        ended = await play(stage, lines)
        where = f"{what} in line {number}: {str(GOOD[number])[:200]}"
        rows, texts = stage.ledger.calls, [said.text for said in stage.history if isinstance(said, AssistantMessage)]
        assert {row.id for row in stage.ledger.intents} == {row.id for row in rows}, where
        assert len({row.id for row in rows}) == len(rows), where
        for tool_use_id, call in CALLS.items():
            if not touches(number, tool_use_id):
                (row,) = [row for row in rows if row.provider_call_id == tool_use_id]
                assert (row.tool_name, row.outcome) == (call["name"], common_pb2.OUTCOME_SUCCEEDED), where
        for row in stage.ledger.costs:
            assert row.input_tokens or row.output_tokens or row.usage_incomplete or row.error, where
        if ended == "STOP_REASON_COMPLETED":
            assert len(rows) >= 1, where
            for said in (FIRST, LAST):
                assert said in stage.text(), where
                assert said in "\n".join(texts) or said in str(GOOD[number]), where
            assert (
                sum(row.cost_micros for row in stage.ledger.costs) in (1080, 0) or GOOD[number]["type"] == "result"
            ), where
