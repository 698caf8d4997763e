"""A program in place of Claude's that means harm: the input of a turn names what it writes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.claude_cli import SURVIVOR, assistant, event, init, message, requesting, result, spent, tool_use

Lines = Iterator[bytes]


def line(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode() + b"\n"


def whole() -> Lines:
    """An answer as it should be."""
    for told in [*message("msg_fine", "done"), result({"claude-opus-5-5": spent(1, 0.01)}, result="done")]:
        yield line(told)


def pieces(kind: str, delta: dict[str, str], times: int) -> Lines:
    """A message whose one block comes in many pieces."""
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-5-5", "content": []}
    yield line(event("message_start", message=head))
    block = {"type": kind, "id": "toolu_1", "name": "Read", "input": {}}
    yield line(event("content_block_start", index=0, content_block=block))
    piece = line(event("content_block_delta", index=0, delta=delta))
    for _ in range(times):
        yield piece


def calls() -> Lines:
    for number in range(20_000):
        yield line(assistant(tool_use(f"toolu_{number}", "Read", {"file_path": "notes.txt"})))


def thoughts() -> Lines:
    yield from [line(assistant({"type": "thinking", "thinking": "x" * 1_000_000, "signature": "s"}))] * 100
    yield from whole()


def before_an_answer(piece: bytes, times: int) -> Callable[[], Lines]:
    def lines() -> Lines:
        yield from [piece] * times
        yield b"\n"
        yield from whole()

    return lines


def survivors() -> Lines:
    null = subprocess.DEVNULL
    for _ in range(20):
        child = subprocess.Popen(
            [sys.executable, "-c", SURVIVOR], stdout=subprocess.PIPE, stdin=null, stderr=null, start_new_session=True
        )
        assert child.stdout is not None
        child.stdout.readline()
    yield from whole()


def errors() -> Lines:
    for _ in range(100):
        os.write(2, b"x" * 2**20)
    yield from whole()


TEXT, JSON = {"type": "text_delta", "text": "x" * 100_000}, {"type": "input_json_delta", "partial_json": "x" * 100_000}
ATTACKS: dict[str, Callable[[], Lines]] = {
    "text": lambda: pieces("text", TEXT, 1_000),
    "whole text": lambda: iter([line(assistant({"type": "text", "text": "x" * 1_000_000}))] * 100),
    "arguments": lambda: pieces("tool_use", JSON, 1_000),
    "fragments": lambda: pieces("tool_use", {"type": "input_json_delta", "partial_json": "x"}, 300_000),
    "calls": calls,
    "reasoning": thoughts,
    "values": before_an_answer(b'{"type":"user","a":[' + b"[]," * 4_000_000 + b"0]}", 1),
    "deep": before_an_answer(b"[" * 15_000_000, 1),
    "overlong": before_an_answer(b"x" * 2**20, 64),
    "garbage": before_an_answer(b"not json\n", 200_000),
    "unknown": before_an_answer(b'{"type":"unknown"}\n', 100_000),
    "errors": errors,
    "survivors": survivors,
}


def main() -> None:
    """Answers the first message of its stdin, and ends with its stdin."""
    asked = next(told for told in sys.stdin if json.loads(told).get("type") == "user")
    name = next(name for name in sorted(ATTACKS, key=len, reverse=True) if f"attack: {name}." in asked)
    output = sys.stdout.buffer
    for told in (init(), requesting()):
        output.write(line(told))
    for piece in ATTACKS[name]():
        output.write(piece)
    output.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
