"""A model server that means harm: what it sends, in the form of each API that engines speak."""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.hostile.serving import Peer

FORMS = ("ollama", "chat", "responses", "anthropic")
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n"
CLOSED = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n"
FINE = '{"path": "notes.txt"}'


def event(form: str, payload: object) -> bytes:
    text = json.dumps(payload)
    return f"{text}\n".encode() if form == "ollama" else f"data: {text}\n\n".encode()


def begin(form: str) -> bytes:
    if form == "anthropic":
        return event(form, {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 9}}})
    return b""


def end(form: str, *, calls: bool = False) -> bytes:
    match form:
        case "ollama":
            done = {"done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 9}
            return event(form, {"model": "m", "message": {"content": ""}, **done})
        case "chat":
            finish = "tool_calls" if calls else "stop"
            return event(form, {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}) + b"data: [DONE]\n\n"
        case "responses":
            return event(form, {"type": "response.completed", "response": {"status": "completed"}})
        case _:
            reason = "tool_use" if calls else "end_turn"
            delta = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 9}}
            return event(form, delta) + event(form, {"type": "message_stop"})


def text(form: str, piece: str) -> bytes:
    match form:
        case "ollama":
            return event(form, {"message": {"content": piece}})
        case "chat":
            return event(form, {"choices": [{"index": 0, "delta": {"content": piece}}]})
        case "responses":
            return event(form, {"type": "response.output_text.delta", "output_index": 0, "delta": piece})
        case _:
            return event(
                form, {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            )


def thought(form: str, piece: str) -> bytes:
    match form:
        case "ollama":
            return event(form, {"message": {"content": "", "thinking": piece}})
        case "chat":
            return event(form, {"choices": [{"index": 0, "delta": {"reasoning_content": piece}}]})
        case "responses":
            return event(form, {"type": "response.reasoning_text.delta", "output_index": 0, "delta": piece})
        case _:
            delta = {"type": "thinking_delta", "thinking": piece}
            return event(form, {"type": "content_block_delta", "index": 0, "delta": delta})


def call(form: str, at: int, arguments: str) -> bytes:
    """A whole call of `read`."""
    match form:
        case "ollama":
            return event(form, {"message": {"tool_calls": [{"function": {"name": "read", "arguments": arguments}}]}})
        case "chat":
            told = {"index": at, "id": f"c{at}", "function": {"name": "read", "arguments": arguments}}
            return event(form, {"choices": [{"index": 0, "delta": {"tool_calls": [told]}}]})
        case "responses":
            item = {"type": "function_call", "call_id": f"c{at}", "name": "read", "arguments": arguments}
            return event(form, {"type": "response.output_item.done", "output_index": at, "item": item})
        case _:
            block = {"type": "tool_use", "id": f"c{at}", "name": "read", "input": {}}
            delta = {"type": "input_json_delta", "partial_json": arguments}
            return (
                event(form, {"type": "content_block_start", "index": at, "content_block": block})
                + event(form, {"type": "content_block_delta", "index": at, "delta": delta})
                + event(form, {"type": "content_block_stop", "index": at})
            )


def arguments(form: str) -> Iterator[bytes]:
    """Of one call where they come in pieces, else of several."""
    piece = "x" * 500_000
    yield CLOSED + begin(form)
    for at in range(30):
        match form:
            case "chat":
                name = {"name": "read"} if at == 0 else {}
                told = {"index": 0, "function": {**name, "arguments": piece}}
                yield event(form, {"choices": [{"index": 0, "delta": {"tool_calls": [told]}}]})
            case "responses":
                kind = "response.function_call_arguments.delta"
                yield event(form, {"type": kind, "output_index": 0, "delta": piece})
            case "anthropic":
                delta = {"type": "input_json_delta", "partial_json": piece}
                yield event(form, {"type": "content_block_delta", "index": 0, "delta": delta})
            case _:
                yield call(form, at, piece)
    yield end(form, calls=True)


def fragments(form: str, begun: str, piece: str, at_once: int) -> Iterator[bytes]:
    """Nameless, of one index, and each may be the end of the call."""
    yield CLOSED
    told: list[dict[str, Any]] = [{"index": 0, "function": {"name": "read", "arguments": begun}}]
    told += [{"index": 0, "id": f"c{number}", "function": {"arguments": piece}} for number in range(20_000)]
    for at in range(0, len(told), at_once):
        yield event(form, {"choices": [{"index": 0, "delta": {"tool_calls": told[at : at + at_once]}}]})
    yield end(form)


def many(form: str, piece: bytes, times: int, last: bytes) -> Iterator[bytes]:
    yield CLOSED + begin(form)
    for _ in range(times):
        yield piece
    yield last


def small_chunks(form: str) -> Iterator[bytes]:
    yield CHUNKED
    for _ in range(300):
        yield b"1\r\n:\r\n" * 1000


def informational(form: str) -> Iterator[bytes]:
    for _ in range(100_000):
        yield b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 100


def trailers(form: str) -> Iterator[bytes]:
    answer = begin(form) + text(form, "hello") + end(form)
    yield CHUNKED + b"%x\r\n%s\r\n0\r\n" % (len(answer), answer)
    for _ in range(1000):
        yield b"x-a: b\r\n" * 100


def bomb(form: str) -> Iterator[bytes]:
    yield CLOSED.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    yield gzip.compress(b"\n" * 300 * 2**20, 6)


def values(form: str) -> Iterator[bytes]:
    yield CLOSED + (b"" if form == "ollama" else b"data: ") + b'{"a":[' + b"[]," * 1_300_000 + b"[]]}\n\n"


EMPTIES = '{"path":[' + "[]," * 1_300_000 + "[]]}"
FIELDS = "{" + ",".join(f'"f{number}":1' for number in range(100_000)) + "}"

ATTACKS: dict[str, Callable[[str], Iterator[bytes]]] = {
    "reasoning": lambda form: many(form, thought(form, "x" * 100_000), 700, text(form, "done") + end(form)),
    "text": lambda form: many(form, text(form, "x" * 100_000), 100, end(form)),
    "arguments": arguments,
    "calls": lambda form: many(form, b"".join(call(form, at, FINE) for at in range(20_000)), 1, end(form, calls=True)),
    "fragments": lambda form: fragments(form, '{"a":"', '}"}', 500),
    "whole fragments": lambda form: fragments(form, '{"a":1}', ",{}", 500),
    "fragments at once": lambda form: fragments(form, '{"a":"', '}"}', 20_001),
    "values": values,
    "values of arguments": lambda form: many(form, call(form, 0, EMPTIES), 1, end(form, calls=True)),
    "fields of arguments": lambda form: many(form, call(form, 0, FIELDS), 1, end(form, calls=True)),
    "small chunks": small_chunks,
    "informational": informational,
    "trailers": trailers,
    "a large head": lambda form: iter([b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 100_000]),
    "behind the end": lambda form: many(
        form, begin(form) + text(form, "hello") + end(form), 1, b":" + b"x" * 100 * 2**20
    ),
    "gzip": bomb,
    "an absurd wait": lambda form: iter(
        [b"HTTP/1.1 503 X\r\nretry-after: Fri, 31 Dec 99999999999999999999 23:59:59 GMT\r\ncontent-length: 0\r\n\r\n"]
    ),
}


PATHS = {"/api/chat": "ollama", "/chat/completions": "chat", "/responses": "responses", "/messages": "anthropic"}


class ModelAttacks(Peer):
    """The server. A request's `model` says what it is answered with; the second one of a turn ends it."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0

    def answer(self, head: str, body: bytes) -> Iterable[bytes]:
        """Harms whoever asks."""
        if not body:  # whether somebody is there
            return [b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"]
        self.requests += 1
        form = next(form for path, form in PATHS.items() if path in head.partition("\r\n")[0])
        if any(told in body for told in (b'"tool_call_id"', b'"function_call_output"', b'"tool_result"')):
            return [CLOSED + begin(form) + text(form, "done") + end(form)]
        return ATTACKS[json.loads(body)["model"]](form)
