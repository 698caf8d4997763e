"""A program that speaks as Claude's does, by a script: for tests, and where Claude's own is not installed.

As a module it makes the lines of a script, in the shapes that version 2.1.330 of the program wrote. As a program
(`python claude_cli.py FOLDER …`) it plays FOLDER/play-N.json, N counting its runs from 0 and the last play repeating,
and appends to FOLDER/journal.jsonl what it was given: arguments, environment, folder, lines of stdin.

A play is {"lines": [...]} and, where wanted, "on_interrupt" (lines), "exit" (code), "ignore_term", "stay" (does not end
with its stdin), "unprompted" (does not wait for it), "bare" (rids itself of its environment). A line is an object to
write, or {"do": ...}: raw (text), bytes (of one long line), sleep (seconds), stderr (text), spawn (a process in a
session of its own that ignores SIGTERM and holds stdout; "bare" as above), wait (for an interrupt), ask (before a tool
runs, and wait for the answer), exit (code), kill.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

SESSION = "40c8601f-aea5-4dfd-91bd-0c5e2bca0f2e"
MODEL = "claude-opus-5-5"
Line = dict[str, Any]

SURVIVOR = """
import contextlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with contextlib.suppress(OSError):  # nobody reads any more
    print("up", flush=True)
time.sleep(300)
"""


def init(session_id: str = SESSION, model: str = MODEL, tools: Sequence[str] = ()) -> Line:
    """The first line of a session that was taken up."""
    fields = {
        "cwd": "/w",
        "tools": ["Bash", "Read", *tools],
        "mcp_servers": [],
        "permissionMode": "default",
        "uuid": "u",
    }
    return {"type": "system", "subtype": "init", "session_id": session_id, "model": model, **fields}


def requesting() -> Line:
    return {"type": "system", "subtype": "status", "status": "requesting", "session_id": SESSION}


def usage(given: int = 11, made: int = 7, read: int = 5, output: int = 1) -> Line:
    """Tokens of a request: given, written to the cache, read from it, and put out."""
    return {
        "input_tokens": given,
        "cache_creation_input_tokens": made,
        "cache_read_input_tokens": read,
        "output_tokens": output,
    }


def tool_use(tool_use_id: str, name: str, arguments: Line) -> Line:
    return {"type": "tool_use", "id": tool_use_id, "name": name, "input": arguments}


def message(
    message_id: str,
    text: str = "",
    tools: Sequence[Line] = (),
    *,
    thinking: str = "",
    stop: str | None = "",
    output: int = 23,
    model: str = MODEL,
) -> list[Line]:
    """A message as it is streamed: pieces, and between them a line for each whole block, all with its first usage."""
    head = {"id": message_id, "type": "message", "role": "assistant", "model": model, "content": []}
    lines = [event("message_start", message={**head, "stop_reason": None, "stop_sequence": None, "usage": usage()})]
    blocks = [{"type": "thinking", "thinking": thinking, "signature": "sig"}] if thinking else []
    blocks += [{"type": "text", "text": text}] if text else []
    for index, block in enumerate([*blocks, *tools]):
        lines.append(event("content_block_start", index=index, content_block=block | _EMPTY[block["type"]]))
        lines += [event("content_block_delta", index=index, delta=piece) for piece in _pieces(block)]
        lines.append(assistant(block, message_id=message_id, model=model))
        lines.append(event("content_block_stop", index=index))
    reason = stop if stop != "" else "tool_use" if tools else "end_turn"
    lines.append(event("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": output}))
    return [*lines, event("message_stop")]


_EMPTY: dict[str, Line] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
}
"""What a block holds when it starts."""


def _pieces(block: Line) -> list[Line]:
    match block["type"]:
        case "text":
            return [{"type": "text_delta", "text": word} for word in block["text"].replace(" ", " \0").split("\0")]
        case "thinking":
            return [{"type": "thinking_delta", "thinking": block["thinking"]}]
    return [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]


def event(kind: str, **fields: Any) -> Line:
    """One piece of the model's stream."""
    body = {"type": kind, **fields}
    return {"type": "stream_event", "event": body, "session_id": SESSION, "parent_tool_use_id": None}


def assistant(block: Line, *, message_id: str = "msg_1", model: str = MODEL, parent: str | None = None) -> Line:
    """A whole block of a message."""
    inner: Line = {"id": message_id, "type": "message", "role": "assistant", "model": model, "content": [block]}
    inner |= {"stop_reason": None, "usage": usage()}
    return {"type": "assistant", "message": inner, "parent_tool_use_id": parent, "session_id": SESSION}


def api_error(code: str, text: str) -> Line:
    """What the program says when a request failed for good."""
    inner: Line = {"id": "synthetic", "model": "<synthetic>", "role": "assistant", "usage": usage(0, 0, 0, 0)}
    inner["content"] = [{"type": "text", "text": text}]
    return {"type": "assistant", "message": inner, "error": code, "is_api_error_message": True, "session_id": SESSION}


def tool_result(
    tool_use_id: str, content: Any, *, error: bool = False, detail: Any = None, parent: str | None = None
) -> Line:
    """The result of a call."""
    block = {"type": "tool_result", "tool_use_id": tool_use_id, "content": content}
    block |= {"is_error": True} if error else {}
    line = {"type": "user", "message": {"role": "user", "content": [block]}, "parent_tool_use_id": parent}
    return {**line, "session_id": SESSION, "tool_use_result": detail if detail is not None else f"Error: {content}"}


BASH_DONE = {"stdout": "", "stderr": "", "interrupted": False, "isImage": False, "noOutputExpected": False}
"""What a `tool_use_result` tells of a command that exited 0."""


def spent(requests: int, cost_usd: float, *, output: int = 23, **more: Any) -> Line:
    """What a model took in so many requests of the default usage."""
    counts = {"inputTokens": 11, "outputTokens": output, "cacheReadInputTokens": 5, "cacheCreationInputTokens": 7}
    return {name: value * requests for name, value in counts.items()} | {"costUSD": cost_usd, **more}


def result(
    total: Mapping[str, Line] | None = None,
    *,
    since: Mapping[str, Line] | None = None,
    error: bool = False,
    **more: Any,
) -> Line:
    """The line that ends a round: running totals by model, and, as newer programs say it, what came since the last."""
    total = total or {}
    line: Line = {"type": "result", "subtype": "success", "is_error": error, "num_turns": 1, "duration_ms": 9}
    line |= {"result": "", "session_id": SESSION, "usage": usage(), "permission_denials": [], "modelUsage": total}
    line["total_cost_usd"] = sum(entry["costUSD"] for entry in total.values())
    if since is not None:
        line["model_usage_since_last_result"] = since
    return line | more


def lost_session(session_id: str = SESSION) -> Line:
    """The only line of a run that was to go on with a session that is not there."""
    said = f"No conversation found with session ID: {session_id}"
    return result(error=True, subtype="error_during_execution", num_turns=0, errors=[said], session_id=session_id)


class _Player:
    """One run of the program."""

    def __init__(self, folder: Path) -> None:
        self._journal = folder / "journal.jsonl"
        runs = self._journal.read_text("utf-8").count('"argv"') if self._journal.exists() else 0
        last = len(list(folder.glob("play-*.json"))) - 1
        self._play: Line = json.loads((folder / f"play-{min(runs, last)}.json").read_text("utf-8"))
        if self._play.get("bare") and "HOME" in os.environ:
            os.execve(sys.executable, [sys.executable, *sys.argv], {"PATH": os.environ["PATH"]})
        self._interrupted = threading.Event()
        self._ended = threading.Event()
        self._answers: SimpleQueue[Line] = SimpleQueue()
        self._prompted = threading.Event()
        self._note({"argv": sys.argv[2:], "env": dict(os.environ), "cwd": str(Path.cwd()), "pid": os.getpid()})

    def run(self) -> int:
        if self._play.get("ignore_term"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Thread(target=self._listen, daemon=True).start()
        if not self._play.get("unprompted"):
            self._prompted.wait()
        for line in self._play["lines"]:
            if self._interrupted.is_set():
                break
            self._do(line)
        while not (self._ended.is_set() and not self._play.get("stay")) and not self._interrupted.is_set():
            time.sleep(0.005)
        if self._interrupted.is_set():
            for line in self._play["on_interrupt"]:
                self._write(json.dumps(line))
        return int(self._play.get("exit", 0))

    def _do(self, line: Line) -> None:
        match line.get("do"):
            case None:
                self._write(json.dumps(line))
            case "raw":
                self._write(line["text"])
            case "bytes":
                self._write('{"type": "padding", "text": "' + "x" * line["bytes"] + '"}')
            case "sleep":
                time.sleep(line["seconds"])
            case "stderr":
                sys.stderr.write(line["text"])
                sys.stderr.flush()
            case "spawn":
                self._spawn({} if line.get("bare") else dict(os.environ))
            case "ask":
                self._ask(line["call"])
            case "wait":
                self._interrupted.wait()
            case "exit":
                os._exit(line["code"])
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)

    def _ask(self, call: Line) -> None:
        """The hook before a tool; what the answer says is noted."""
        asked = {"hook_event_name": "PreToolUse", "tool_name": call["name"], "tool_input": call["input"]}
        request = {"subtype": "hook_callback", "callback_id": "onrecord-intent", "tool_use_id": call["id"]}
        self._write(json.dumps({"type": "control_request", "request_id": "r", "request": {**request, "input": asked}}))
        self._note({"answered": self._answers.get()["response"]})

    def _spawn(self, env: dict[str, str]) -> None:
        null = subprocess.DEVNULL
        child = subprocess.Popen(
            [sys.executable, "-c", SURVIVOR], env=env, start_new_session=True, stdin=null, stderr=null
        )
        self._note({"spawned": child.pid})

    def _listen(self) -> None:
        for raw in sys.stdin.buffer:
            line = json.loads(raw)
            self._note({"stdin": line})
            if line.get("type") == "user":
                self._prompted.set()
            if line.get("type") == "control_response":
                self._answers.put(line["response"])
            if line.get("request", {}).get("subtype") == "interrupt" and "on_interrupt" in self._play:
                self._interrupted.set()
        self._ended.set()

    def _note(self, entry: Line) -> None:
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    code = _Player(Path(sys.argv[1])).run()
    sys.stdout.flush()
    os._exit(code)
