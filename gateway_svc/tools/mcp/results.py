"""Turns the answer of an MCP server into a ToolResult. Its words are content: no recorded error quotes them.

A result is read block by block: a malformed block is named, and the others count. Results are not checked against the
server's output schema.
"""

import json
import re
from typing import Any

from onrecord.common.v1 import common_pb2

from gateway_svc.tools import ToolError
from gateway_svc.tools.mcp.wire import BadStatus, Refusal
from recording.calls import ToolResult

MAX_BLOCKS = 10_000
_MEDIA = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}", re.ASCII)


def tool_result(answer: dict[str, Any]) -> ToolResult:
    """The result of an answered call.

    Raises:
        ToolError: the server reports an error, or its answer is malformed.
    """
    content = answer.get("content")
    blocks = content if isinstance(content, list) else [] if content is None else [content]
    parts = [_shown(block) for block in blocks[:MAX_BLOCKS]]
    if len(blocks) > MAX_BLOCKS:
        parts.append((f"[{len(blocks) - MAX_BLOCKS} more blocks are left out]", 0))
    if not any(size for _, size in parts) and answer.get("structuredContent") is not None:
        structured = json.dumps(answer["structuredContent"], ensure_ascii=False)
        parts.append((structured, _size(structured)))
    text, size = "\n".join(shown for shown, _ in parts), sum(size for _, size in parts)
    if answer.get("isError") not in (None, False):
        raise ToolError("the tool reported an error", text=f"Error: {text}", result_bytes=size)
    if answer.get("resultType", "complete") != "complete":
        raise ToolError(
            "the tool asked for more input, which is not given", text=f"Error: more input is wanted\n{text}"
        )
    return ToolResult(text or "(no output)", result_bytes=size)


def away(server: str) -> ToolError:
    """The server is not connected."""
    return ToolError(f"the MCP server {server} is not running; it is being started again")


def died(server: str) -> ToolError:
    """The server ended or became unreachable before it answered."""
    return ToolError(
        f"the MCP server {server} ended in the middle of the call: whether the tool finished is not known",
        outcome=common_pb2.OUTCOME_INTERRUPTED,
    )


def timed_out(server: str, seconds: float) -> ToolError:
    """The server did not answer in time."""
    return ToolError(
        f"the MCP server {server} did not answer within {seconds:g} s", outcome=common_pb2.OUTCOME_TIMED_OUT
    )


def unreadable(server: str) -> ToolError:
    """The server's answer violates the protocol."""
    return ToolError(f"the MCP server {server} gave an answer that cannot be read")


def without_answer(server: str, status: BadStatus) -> ToolError:
    """The server, or a proxy before it, answered with a status of HTTP alone."""
    return ToolError(f"the MCP server {server} {status}")


def refused(server: str, refusal: Refusal) -> ToolError:
    """The server answered with a protocol error, such as an unknown tool."""
    return ToolError(f"the MCP server {server} refused the call ({refusal.name})", text=f"Error: {refusal.message}")


def _shown(block: Any) -> tuple[str, int]:
    """A block's text for the model, and its size in bytes; other blocks are named instead."""
    match block:
        case {"type": "text", "text": str(text)} | str(text):
            return text, _size(text)
        case {"type": "image" | "audio" as kind, "data": str(data)}:
            size = len(data) * 3 // 4
            return f"[{kind} of type {_media(block)}, {size} bytes]", size
        case {"type": "resource_link", "uri": str(uri)}:
            return f"[resource {uri}]", 0
        case {"type": "resource", "resource": {"text": str(text)}}:
            return text, _size(text)
        case {"type": "resource", "resource": {"uri": str(uri), "blob": str(blob)}}:
            size = len(blob) * 3 // 4
            return f"[resource {uri}, {size} bytes]", size
    return "[a part of the answer that cannot be read]", 0


def _media(block: dict[str, Any]) -> str:
    media = block.get("mimeType")
    return media if isinstance(media, str) and _MEDIA.fullmatch(media) else "unknown"


def _size(text: str) -> int:
    return len(text.encode(errors="replace"))
