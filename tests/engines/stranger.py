"""A model server of somebody else's: it sends the bytes of a file, and refuses what such servers refuse."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.listening import listening

FILES = Path(__file__).parent / "strangers"
Request = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """One answer: its bytes, and whether the connection is cut behind them."""

    body: bytes
    status: int = 200
    content_type: str = "text/event-stream"
    is_cut: bool = False


@dataclass(frozen=True)
class Case:
    """What a file says."""

    name: str
    options: dict[str, str]
    replies: list[Reply]


def load_case(path: Path) -> Case:
    head, *parts = re.split(r"^>>> ", path.read_text(), flags=re.MULTILINE)
    words = head.splitlines()[1].lstrip("# ").split()
    options = dict(word.split("=", 1) for word in words if "=" in word)
    replies = []
    for part in parts:
        line, _, body = part.partition("\n")
        told = dict(word.split("=", 1) for word in line.split())
        replies.append(Reply(body.encode(), int(told["status"]), told["ctype"], told["end"] == "cut"))
    return Case(path.name, options, replies)


def refusal(message: str, status: int = 400, code: str | None = None) -> Reply:
    error = {"error": {"message": message, "code": code}}
    return Reply(json.dumps(error).encode(), status, "application/json")


def calls(request: Request) -> list[dict[str, Any]]:
    return [call for message in request.get("messages", ()) for call in message.get("tool_calls") or ()]


def assistants(request: Request) -> list[dict[str, Any]]:
    return [message for message in request.get("messages", ()) if message["role"] == "assistant"]


def _gemini(request: Request) -> Reply | None:
    unsigned = any("extra_content" not in call for call in calls(request))
    return refusal("Function call is missing a thought_signature in functionCall parts.") if unsigned else None


def _openrouter(request: Request) -> Reply | None:
    bare = any(not message.get("reasoning_details") for message in assistants(request))
    said = "Gemini models require OpenRouter reasoning details to be preserved in each request."
    return refusal(said) if bare else None


def _no_empty(request: Request) -> Reply | None:
    empty = any(not (m.get("content") or "").strip() and not m.get("tool_calls") for m in assistants(request))
    return refusal("the message at position 1 with role 'assistant' must not be empty") if empty else None


def _mistral(request: Request) -> Reply | None:
    odd = any(not re.fullmatch("[a-zA-Z0-9]{9}", call["id"]) for call in calls(request))
    return refusal("Tool call id must be a-z, A-Z, 0-9, with a length of 9.") if odd else None


def _kimi(request: Request) -> Reply | None:
    bare = any(message.get("tool_calls") and not message.get("reasoning_content") for message in assistants(request))
    said = "thinking is enabled but reasoning_content is missing in assistant tool call message"
    return refusal(said) if bare else None


def _no_thoughts(request: Request) -> Reply | None:
    told = any(name in m for m in assistants(request) for name in ("reasoning_content", "reasoning"))
    return refusal("property 'reasoning_content' is unsupported") if told else None


def _no_stream_options(request: Request) -> Reply | None:
    said = "Unrecognized request argument supplied: stream_options"
    return refusal(said) if "stream_options" in request else None


def _context(request: Request) -> Reply | None:
    tokens = sum(len(json.dumps(message)) for message in request["messages"]) * 10 // 12
    said = "This model's maximum context length is 8192 tokens. However, your messages resulted in more."
    return refusal(said, code="context_length_exceeded") if tokens > 8192 else None


def _responses(request: Request) -> Reply | None:
    for item in request["input"]:
        if item.get("type") == "reasoning" and item.get("id") and not item.get("encrypted_content"):
            said = f"Item with id '{item['id']}' not found. Items are not persisted when `store` is set to false."
            return refusal(said, 404)
        if any(len(str(item.get(name, ""))) > 64 for name in ("id", "call_id")):
            return refusal("Invalid 'input[1].id': string too long. Expected a string with maximum length 64.")
        if unknown := item.keys() - RESPONSE_FIELDS:
            return refusal(f"Unknown parameter: 'input[0].{min(unknown)}'.", code="unknown_parameter")
    return None


RESPONSE_FIELDS = {"type", "id", "role", "status", "content", "phase", "call_id", "name", "arguments", "summary"}
RESPONSE_FIELDS |= {"encrypted_content", "output"}


def _unique_ids(request: Request) -> Reply | None:
    ids = [call["id"] for call in calls(request)]
    return refusal("Duplicate value for 'tool_call_id'") if len(set(ids)) < len(ids) else None


def _anthropic_ids(request: Request) -> Reply | None:
    odd = any(not re.fullmatch("[a-zA-Z0-9_-]{1,64}", call["id"]) for call in calls(request))
    return refusal("messages.1.content.0.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'") if odd else None


def _openai(request: Request) -> Reply | None:
    if any(len(call["id"]) > 40 for call in calls(request)):
        return refusal("Invalid 'messages[1].tool_calls[0].id': string too long. Expected a maximum length of 40.")
    known = {"role", "content", "tool_calls", "tool_call_id"}
    odd = [name for message in request["messages"] for name in message.keys() - known]
    return refusal(f"Unrecognized request argument supplied: {odd[0]}") if odd else None


CHECKS: dict[str, Callable[[Request], Reply | None]] = {
    "": lambda request: None,
    "leak": lambda request: None,
    "thought_signature": _gemini,
    "reasoning_details": _openrouter,
    "no_empty_assistant": _no_empty,
    "mistral_ids": _mistral,
    "kimi_thoughts": _kimi,
    "no_thoughts": _no_thoughts,
    "no_stream_options": _no_stream_options,
    "context": _context,
    "rs_not_found": _responses,
    "unique_ids": _unique_ids,
    "anthropic_ids": _anthropic_ids,
}


@dataclass
class Stranger:
    """The server: where it is, and what it was asked."""

    replies: list[Reply]
    check: Callable[[Request], Reply | None] = CHECKS[""]
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    refused: int = 0
    _served: int = 0

    def reply(self, path: str, request: Request) -> Reply:
        self.requests.append(request)
        if not path.startswith("/api/") and (refused := self.check(request)):
            self.refused += 1
            self._served += 1
            return refused
        at, self._served = min(self._served, len(self.replies) - 1), self._served + 1
        return self.replies[at]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(int(line[15:]) for line in head.lower().splitlines() if line.startswith("content-length:"))
        request = json.loads(await reader.readexactly(length))
        reply = self.reply(head.split()[1], request)
        size = len(reply.body) + 100 if reply.is_cut else len(reply.body)
        begin = f"HTTP/1.1 {reply.status} X\r\nContent-Type: {reply.content_type}\r\nContent-Length: {size}\r\n"
        writer.write(begin.encode() + b"Connection: close\r\n\r\n" + reply.body)
        await writer.drain()


@asynccontextmanager
async def stranger(*replies: Reply, check: Callable[[Request], Reply | None] = CHECKS[""]) -> AsyncIterator[Stranger]:
    """A stranger on a port of its own. A request that it refuses uses up a reply, as in the field."""
    told = Stranger(list(replies), check)
    async with listening(told.serve) as port:
        told.url = f"http://127.0.0.1:{port}"
        yield told
