"""What Claude's program writes is bounded by what it becomes: the turn ends, and its cost row says by which bound."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from gateway_svc.engines.claude import bill, calls, stream, streamed_calls
from gateway_svc.engines.claude.lines import MAX_LINE_BYTES
from gateway_svc.engines.claude.process import ClaudeProcess
from gateway_svc.engines.claude.speech import AGAIN, Speech
from gateway_svc.errors import AnswerTooLarge
from gateway_svc.messages import AssistantMessage, Message, ToolMessage, UserMessage
from recording.logger import Row
from service_kit.bounds import MIB, REASONING_CHARACTERS, TEXT, Bound
from tests.engines_claude.stage import Stage
from tests.engines_claude.test_odd_lines import Program, call, drive, one_line
from tests.support.claude_cli import MODEL, Line, assistant, event, init, message, result, spent
from tests.support.others import each_look_takes, others

LARGE = "x" * MIB
END = [*message("msg_9", "Done"), result({MODEL: spent(2, 0.00108)}, result="Done")]


def block(kind: str, number: int, **fields: Any) -> Line:
    return assistant({"type": kind, **fields}, message_id=f"msg_{number}")


def piece(kind: str, text: str) -> Line:
    name = "text" if kind == "text_delta" else "partial_json"
    return event("content_block_delta", index=0, delta={"type": kind, name: text})


def start(number: int) -> Line:
    shown = {"type": "tool_use", "id": f"c{number}", "name": "Read", "input": {}}
    return event("content_block_start", index=number, content_block=shown)


ATTACKS: dict[str, tuple[Callable[[], Iterator[Line]], str]] = {
    "text in pieces": (lambda: (piece("text_delta", LARGE) for _ in range(5)), "answer_text"),
    "text in blocks": (lambda: (block("text", number, text=LARGE) for number in range(65)), "program_text"),
    "reasoning": (lambda: (block("thinking", 1, thinking=LARGE) for _ in range(65)), "program_text"),
    "arguments in pieces": (lambda: iter([start(0), *[piece("input_json_delta", LARGE)] * 65]), "program_text"),
    "arguments": (lambda: (assistant(call("Read", number, a=LARGE)) for number in range(65)), "program_text"),
    "blocks of calls": (lambda: (start(number) for number in range(51)), "answer_calls"),
    "fragments": (lambda: iter([start(0), *[piece("input_json_delta", " ")] * 51]), "answer_fragments"),
    "calls": (lambda: (assistant(call("Read", number, a=number)) for number in range(51)), "program_calls"),
    "calls in one line": (lambda: iter([one_line(*(call("Read", n, a=n) for n in range(51)))]), "program_calls"),
    "requests": (lambda: (block("text", number, text="a") for number in range(51)), "program_requests"),
    "tools": (lambda: iter([{**init(), "tools": [f"tool{number}" for number in range(100)]}]), "program_calls"),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_beyond_a_bound_the_turn_ends_and_its_row_names_the_bound(stage: Stage, monkeypatch, attack: str):
    lines, bound = ATTACKS[attack]
    for module in (bill, calls, stream, streamed_calls):
        for name, of in list(vars(module).items()):
            if isinstance(of, Bound) and of.name == bound:
                monkeypatch.setattr(module, name, replace(of, limit=2 * MIB if bound.endswith("text") else 50))
    with pytest.raises(AnswerTooLarge) as ended:
        await drive(stage, Program([*message("msg_0", "I begin")[:1], *lines(), *END]))
    assert ended.value.bound == bound
    assert [row.error for row in stage.ledger.costs][-1] == f"over_{bound}"
    assert len(stage.ledger.calls) < 100


async def test_others_have_their_turn_while_many_open_calls_end(stage: Stage, monkeypatch):
    each_look_takes(monkeypatch, 0.3)
    record = stage.ledger.record
    async with others() as beside:

        def counted(row: Row) -> None:
            beside.done += 1
            record(row)

        stage.ledger.record = counted  # type: ignore[method-assign]
        await drive(stage, Program([assistant(call("Read", number, a=number)) for number in range(300)] + END))
    assert len(stage.ledger.calls) == 300
    assert 2 <= beside.most <= 5


async def test_others_have_their_turn_while_what_many_calls_came_to_is_kept(stage: Stage, monkeypatch):
    each_look_takes(monkeypatch, 0.3)
    async with others() as beside:

        class Counted(list[Message]):
            def append(self, message: Message) -> None:
                beside.done += 1
                super().append(message)

        stage.history = Counted()
        await drive(stage, Program([assistant(call("Read", number, a=number)) for number in range(300)] + END))
    kept = [type(message) for message in stage.history]
    assert kept == [UserMessage, AssistantMessage, *[ToolMessage] * 300, AssistantMessage]
    assert 2 <= beside.most <= 5


@pytest.mark.long
async def test_others_have_their_turn_while_lines_are_read_that_say_nothing(tmp_path, monkeypatch):
    each_look_takes(monkeypatch, 0.3)
    process = await ClaudeProcess.start(["sh", "-c", "yes no | head -n 20000"], cwd=tmp_path, env={})
    parse = process._parse
    async with others() as beside:

        def counted(line: bytes) -> dict[str, Any] | None:
            beside.done += 1
            return parse(line)

        monkeypatch.setattr(process, "_parse", counted)
        assert [line async for line in process.lines()] == []
    await process.end(interrupt=False, at_once=True)
    await process.close()
    assert process.skipped_lines == 20_000
    assert 2 <= beside.most <= 4


async def test_of_reasoning_the_beginning_and_the_end_are_kept(stage: Stage):
    thoughts = [block("thinking", 1, thinking=text) for text in ("begin", *[LARGE] * 3, "end")]
    await drive(stage, Program([*thoughts, block("text", 1, text="Done"), *END[-1:]]))
    (kept,) = [message.thinking for message in stage.history if isinstance(message, AssistantMessage)]
    assert len(kept) < REASONING_CHARACTERS + 100
    assert kept.startswith("begin\n\nxxx")
    assert kept.endswith("xxx\n\nend")


async def test_of_a_long_text_the_beginning_and_the_end_are_kept_and_the_client_hears_all(stage: Stage):
    texts = ["begin", *[LARGE] * 5, "end"]
    stage.play([init(), *(block("text", 1, text=text) for text in texts), *END[-1:]])
    assert await stage.run() == "STOP_REASON_COMPLETED"
    (kept,) = [message.text for message in stage.history if isinstance(message, AssistantMessage)]
    assert len(kept) < TEXT.limit + 100
    assert kept.startswith("begin\n\nxxx")
    assert kept.endswith("xxx\n\nend")
    assert stage.text() == "".join(texts)


@pytest.mark.long
async def test_a_line_of_too_many_values_is_skipped_and_costs_no_other(stage: Stage):
    """As one that is too long: the program goes on."""
    many = {"type": "user", "padding": [[] for _ in range(300_000)]}
    assert len(json.dumps(many)) < MAX_LINE_BYTES
    stage.play([init(), many, *END])
    await stage.run()
    assert stage.text() == "Done"


async def test_a_program_that_says_the_same_again_and_again_does_not_fill_the_log(stage: Stage, capsys):
    told = {"type": "rate_limit_event", "rate_limit_info": {"status": "allowed_warning"}}
    await drive(stage, Program([told] * 1000 + END))
    assert capsys.readouterr().out.count("claude.rate_limit") == 100


@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("again", ["abcdefghij", "abcdefghijklm", "abcdeXghij", "abc", "X", ""])
def test_a_text_that_comes_again_in_pieces_is_told_once_or_marked(again: str, size: int):
    """Whatever the pieces; what was told before is looked at once, not again with each of them."""
    told: list[str] = []
    speech = Speech(told.append, lambda _: None)
    speech.begin("one", anew=True)
    speech.add_piece("abcdefghij")
    speech.begin("two", anew=True)
    for at in range(0, len(again), size):
        speech.add_piece(again[at : at + size])
    speech.complete()
    new = again.removeprefix("abcdefghij") if again.startswith("abcdefghij") else AGAIN + again
    assert "".join(told) == "abcdefghij" + (new if again else "")
