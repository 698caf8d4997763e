"""Lines in odd orders and with odd fields: each call has one row, each turn an end, and no part costs another."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.engines.claude.memory import Memory
from gateway_svc.engines.claude.run import Run
from gateway_svc.messages import AssistantMessage, ToolMessage
from tests.engines_claude.stage import Stage, list_price
from tests.engines_claude.test_mutations import Lines
from tests.support.claude_cli import (
    BASH_DONE,
    MODEL,
    SESSION,
    Line,
    assistant,
    init,
    message,
    result,
    spent,
    tool_result,
    tool_use,
)

SUCCEEDED, FAILED = common_pb2.OUTCOME_SUCCEEDED, common_pb2.OUTCOME_FAILED
DENIED, INTERRUPTED = common_pb2.OUTCOME_DENIED, common_pb2.OUTCOME_INTERRUPTED
END = [*message("msg_9", "Done"), result({MODEL: spent(2, 0.00108)}, result="Done")]


HOUR = 3600.0


class Program(Lines):
    """As Lines, and it hears what it is told. It may stay when it has said all."""

    def __init__(self, lines: list[Line], *, stays: bool = False) -> None:
        super().__init__([init(), *lines])
        self.heard: list[Any] = []
        self._stays = stays

    async def lines(self) -> AsyncGenerator[Line, None]:
        async for line in super().lines():
            yield line
        if self._stays:
            await asyncio.Event().wait()

    def send(self, line: Any) -> None:
        self.heard.append(line)


async def play(stage: Stage, lines: list[Line]) -> str:
    return await drive(stage, Program(lines))


async def drive(stage: Stage, program: Program) -> str:
    turn = stage.turn()
    run = Run(turn, Memory(stage.folder), list_price, stage.ledger.audit())
    process: Any = program
    ended = pb.StopReason.Name(await run.drive(process, resumed=False, seconds=HOUR))
    await stage.gather(turn)
    return ended


def call(name: str, number: int = 1, **arguments: Any) -> Line:
    return tool_use(f"call_{number}", name, arguments)


def one_line(*blocks: Any) -> Line:
    """A line with all blocks of a message."""
    line = assistant(blocks[0])
    return {**line, "message": {**line["message"], "content": list(blocks)}}


def asks(subtype: str = "hook_callback", request_id: Any = "r1", **more: Any) -> Line:
    return {"type": "control_request", "request_id": request_id, "request": {"subtype": subtype, **more}}


def hook(block: Line) -> Line:
    asked = {"hook_event_name": "PreToolUse", "tool_name": block["name"], "tool_input": block["input"]}
    return asks(callback_id="onrecord-intent", tool_use_id=block["id"], input=asked)


def outcomes(stage: Stage) -> list[tuple[str, int]]:
    return [(row.tool_name, row.outcome) for row in stage.ledger.calls]


def denied(tool_use_id: Any) -> Line:
    return {"type": "system", "subtype": "permission_denied", "tool_use_id": tool_use_id, "tool_name": "Bash"}


READ, BASH = call("Read", file_path="/a"), call("Bash", command="ls")
ODD_KINDS: list[Any] = [None, 7, []]
OUT: list[tuple[str, list[Line], list[tuple[str, int]]]] = [
    (
        "a server that begins anew with its ids in each message",
        [
            *message("msg_1", "", [READ]),
            tool_result("call_1", "a"),
            *message("msg_2", "", [BASH]),
            tool_result("call_1", "b", detail=BASH_DONE),
        ],
        [("Read", SUCCEEDED), ("Bash", SUCCEEDED)],
    ),
    (
        "the same, each held until it is on the record",
        [
            *(*message("msg_1", "", [READ]), hook(READ), tool_result("call_1", "a")),
            *(hook(BASH), *message("msg_2", "", [BASH]), tool_result("call_1", "b", detail=BASH_DONE)),
        ],
        [("Read", SUCCEEDED), ("Bash", SUCCEEDED)],
    ),
    (
        "the same, the first of them denied",
        [
            *(*message("msg_1", "", [BASH]), denied("call_1"), tool_result("call_1", "no", error=True)),
            *(*message("msg_2", "", [READ]), tool_result("call_1", "no such file", error=True)),
        ],
        [("Bash", DENIED), ("Read", FAILED)],
    ),
    (
        "a line that is told again behind its result",
        [
            *(assistant(READ), tool_result("call_1", "a"), assistant(READ)),
            *(assistant(READ, message_id="msg_1"), tool_result("call_1", "a")),
        ],
        [("Read", SUCCEEDED)],
    ),
    (
        "a result ahead of its call's own line",
        [
            *[line for line in message("msg_1", "", [READ]) if line["type"] != "assistant"][:-2],
            *(tool_result("call_1", "a"), assistant(READ), *message("msg_2", "so")),
        ],
        [("Read", SUCCEEDED)],
    ),
    (
        "two results of one call",
        [assistant(READ), tool_result("call_1", "a"), tool_result("call_1", "no", error=True)],
        [("Read", SUCCEEDED)],
    ),
    ("a result of no call", [tool_result("call_7", "a"), tool_result("", "b")], []),
    (
        "a subagent's call with the id of another",
        [
            *(assistant(READ), tool_result("call_1", "a")),
            assistant(BASH, message_id="msg_s", parent="toolu_task"),
            tool_result("call_1", "b", parent="toolu_task", detail=BASH_DONE),
        ],
        [("Read", SUCCEEDED), ("Bash", SUCCEEDED)],
    ),
    (
        "a subagent named by an object",
        [{**assistant(READ), "parent_tool_use_id": {"id": 1}}, tool_result("call_1", "a")],
        [("Read", SUCCEEDED)],
    ),
    (
        "denials of odd ids",
        [denied(None), denied(["call_1"]), assistant(READ), denied({}), tool_result("call_1", "a")],
        [("Read", SUCCEEDED)],
    ),
    (
        "a call that was denied and has a good result all the same",
        [assistant(READ), denied("call_1"), tool_result("call_1", "a")],
        [("Read", SUCCEEDED)],
    ),
    ("a call whose result never comes", [assistant(READ)], [("Read", INTERRUPTED)]),
    (
        "hooks of a deployment's own, and lines of no known kind",
        [
            {"type": "system", "subtype": "hook_started", "hook_event": "PreToolUse", "tool_use_id": "call_1"},
            {"type": "system", "subtype": "hook_response", "output": {"decision": "block"}},
            *({"type": kind} for kind in ODD_KINDS),
            *({"type": kind} for kind in ("keep_alive", "control_cancel_request", "streamlined_text")),
            *(assistant(READ), {"type": "tool_progress", "tool_use_id": "call_1"}, tool_result("call_1", "a")),
        ],
        [("Read", SUCCEEDED)],
    ),
    (
        "a line of many blocks of one call's id",
        [one_line(READ, READ, 7, READ)],
        [("Read", INTERRUPTED)],
    ),
    (
        "two calls of one message with the same id",
        [one_line(READ, BASH), tool_result("call_1", "a"), tool_result("call_1", "b", detail=BASH_DONE)],
        [("Read", SUCCEEDED), ("Bash", SUCCEEDED)],
    ),
    (
        "the same, streamed and each in a line of its own",
        [*message("msg_1", "", [READ, BASH]), tool_result("call_1", "a"), tool_result("call_1", "b", detail=BASH_DONE)],
        [("Read", SUCCEEDED), ("Bash", SUCCEEDED)],
    ),
    (
        "the same, held, one after the other",
        [
            *(*message("msg_1", "", [READ, BASH]), hook(READ), tool_result("call_1", "a")),
            *(hook(BASH), tool_result("call_1", "b", detail=BASH_DONE)),
        ],
        [("Read", SUCCEEDED), ("Bash", SUCCEEDED)],
    ),
    (
        "the same, held side by side before a line shows them, and asked again",
        [
            *(hook(READ), hook(BASH), hook(READ), *message("msg_1", "", [READ, BASH])),
            *(tool_result("call_1", "a"), tool_result("call_1", "b", detail=BASH_DONE)),
        ],
        [("Read", SUCCEEDED), ("Bash", SUCCEEDED)],
    ),
    (
        "the same, of which one has no result",
        [one_line(READ, BASH), tool_result("call_1", "a")],
        [("Read", SUCCEEDED), ("Bash", INTERRUPTED)],
    ),
    (
        "an id of 100,000 characters",
        [assistant(tool_use("x" * 100_000, "Read", {})), tool_result("x" * 100_000, "a")],
        [("Read", SUCCEEDED)],
    ),
]


@pytest.mark.parametrize(("lines", "rows"), [case[1:] for case in OUT], ids=[case[0] for case in OUT])
async def test_each_call_has_one_row(stage, lines, rows):
    assert await play(stage, [*lines, *END]) == "STOP_REASON_COMPLETED"
    assert outcomes(stage) == rows
    assert [row.id for row in stage.ledger.intents] == [row.id for row in stage.ledger.calls]
    for kind in ("tool_call_started", "tool_call_finished"):
        assert [event.tool_call_id for event in stage.of_kind(kind)] == [row.id for row in stage.ledger.calls]
    assert isinstance(stage.history[-1], AssistantMessage)
    assert stage.history[-1].text.endswith("Done")
    told = [message.provider_call_id for message in stage.history if isinstance(message, ToolMessage)]
    asked = [c.provider_call_id for m in stage.history if isinstance(m, AssistantMessage) for c in m.tool_calls]
    assert told == asked


@pytest.mark.parametrize("asked", ["can_use_tool", "mcp_message", "initialize", "of_tomorrow", "hook_callback", ""])
@pytest.mark.parametrize("request_id", ["r1", 7, None])
async def test_a_question_that_is_not_known_is_refused_and_never_waited_for(stage, asked, request_id):
    """The program would wait for the answer until the turn's time limit."""
    program = Program([asks(asked, request_id, tool_name="Bash", input={}), *END])
    assert await drive(stage, program) == "STOP_REASON_COMPLETED"
    (told,) = program.heard
    assert (told["response"]["subtype"], told["response"]["request_id"]) == ("error", request_id)
    assert stage.ledger.calls == []


SHOWN: dict[str, tuple[Any, str | None]] = {
    "one block, not in a list": ({"type": "text", "text": "found"}, "found"),
    "texts among blocks": (["found", {"type": "text", "text": "more"}], "found\nmore"),
    "blocks of no type": ([{"text": "?"}, {"type": 7}, None, 8, []], "[]\n[7]"),
    "nothing": (None, ""),
    "a number": (7, "7"),
    "an empty list": ([], ""),
    "a reference to a tool": ([{"type": "tool_reference", "tool_name": "x"}], "[tool_reference]"),
    "a picture of no data": ([{"type": "image", "source": {"data": 7}}, {"type": "image", "source": "x"}], None),
    "a lone surrogate": ("a\ud800b", "a\ufffdb"),
}


@pytest.mark.parametrize("name", SHOWN)
async def test_a_result_in_an_odd_form_keeps_what_can_be_read(stage, name):
    content, shown = SHOWN[name]
    await play(stage, [*message("msg_1", "", [READ]), tool_result("call_1", content), *END])
    assert outcomes(stage) == [("Read", SUCCEEDED)]
    (kept,) = [message.text for message in stage.history if isinstance(message, ToolMessage)]
    assert kept == (shown if shown is not None else "[image]\n[image]")


def tasks(*listed: Any) -> Line:
    return {"type": "system", "subtype": "background_tasks_changed", "tasks": list(listed)}


WORK = {"task_id": "b1", "task_type": "local_agent"}


@pytest.mark.parametrize(
    "told",
    [
        *([tasks({**WORK, "status": status})] for status in ("completed", "failed", "killed", "stopped", "cancelled")),
        *([tasks(odd)] for odd in ({**WORK, "task_type": "local_bash"}, {**WORK, "task_type": "dream"})),
        [tasks(WORK), tasks()],
        [tasks(WORK), tasks({**WORK, "status": "killed"}, {"task_type": "monitor_mcp"})],
        [{**tasks(), "tasks": "none"}],
        [{**tasks(), "tasks": {"b1": WORK}}],
        [{"type": "system", "subtype": "task_started", **WORK}, tasks()],
    ],
    ids=str,
)
async def test_only_what_will_wake_the_program_holds_the_turn(stage, told, monkeypatch):
    """The program here stays: a turn that waited for it would last an hour."""
    monkeypatch.setattr("gateway_svc.engines.claude.run.LINGER_SECONDS", 0.05)
    lines = [*message("msg_1", "x"), *told, result({MODEL: spent(1, 0.00054)})]
    assert await drive(stage, Program(lines, stays=True)) == "STOP_REASON_COMPLETED"
    assert stage.text() == "x"


ODD_LIMITS: list[Any] = [None, 7, "x", [], {"status": []}, {"resetsAt": float("nan")}, {"utilization": "0.5"}]
ODD_LIMITS += [{"resetsAt": 10**30}, {"utilization": float("inf")}, {"rateLimitType": {"a": 1}}, {"status": "new"}]


@pytest.mark.parametrize(
    "line",
    [
        *({"type": "rate_limit_event", "rate_limit_info": odd} for odd in ODD_LIMITS),
        {"type": "system", "subtype": "api_retry", "error": ["x"], "attempt": "many", "error_status": "503"},
        {"type": "system", "subtype": "api_retry"},
        {"type": "system", "subtype": "status", "status": ["requesting"]},
        {"type": "system", "subtype": "compact_boundary", "compact_metadata": {"trigger": "auto"}},
        {"type": "system", "subtype": "init", "session_id": "../../etc", "model": 7},
        {"type": "system", "subtype": "init", "session_id": SESSION.upper()},
        {"type": "user", "message": {"content": "/clear"}, "isReplay": True},
        {"type": "user", "message": [1]},
        {"type": "assistant", "message": {"id": "m", "content": {"type": "text", "text": ""}}},
        {"type": "assistant", "message": {"model": "<synthetic>", "content": "No response requested."}},
        {"type": "stream_event", "event": {"type": "error", "error": {"type": "overloaded_error"}}},
        {"type": "stream_event", "event": {"type": "ping"}},
        {"type": "stream_event", "event": {"type": "content_block_delta", "index": {}, "delta": 7}},
        {"type": "stream_event", "event": {"type": "message_delta", "delta": {"stop_reason": None}, "usage": -1}},
        {"type": "control_response", "response": {"subtype": "success", "request_id": "hold"}},
    ],
    ids=str,
)
async def test_a_line_beside_costs_nothing(stage, line):
    """Before a call, between a call and its result, and before the answer."""
    lines = [
        *(line, *message("msg_1", "", [READ]), line, tool_result("call_1", "a")),
        *(line, *message("msg_2", "All done"), result({MODEL: spent(2, 0.00108)}, result="All done")),
    ]
    assert await play(stage, lines) == "STOP_REASON_COMPLETED"
    assert outcomes(stage) == [("Read", SUCCEEDED)]
    assert "All done" in str(stage.history[-1].text)
    assert sum(row.cost_micros for row in stage.ledger.costs) == 1080
