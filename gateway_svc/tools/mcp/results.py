"""What the answer of an MCP server is to the model and to the record. Its words are content: no error quotes them."""

import json

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
)
from onrecord.audit.v1 import audit_pb2

from gateway_svc.tools import ToolError
from recording.calls import ToolResult


def tool_result(answer: CallToolResult) -> ToolResult:
    """The result of a call that a server has answered.

    Raises:
        ToolError: the server says that its tool could not do its work.
    """
    parts = [_shown(block) for block in answer.content]
    if not parts and answer.structured_content is not None:
        structured = json.dumps(answer.structured_content, ensure_ascii=False)
        parts = [(structured, len(structured.encode(errors="replace")))]
    text, size = "\n".join(shown for shown, _ in parts), sum(size for _, size in parts)
    if answer.is_error:
        raise ToolError("the tool reported an error", text=f"Error: {text}", result_bytes=size)
    return ToolResult(text or "(no output)", result_bytes=size)


def died(server: str) -> ToolError:
    """A server that ended, or went out of reach, before it had answered."""
    return ToolError(
        f"the MCP server {server} ended in the middle of the call: whether the tool finished is not known",
        outcome=audit_pb2.OUTCOME_INTERRUPTED,
    )


def timed_out(server: str, seconds: float) -> ToolError:
    """A server that did not answer in time."""
    return ToolError(
        f"the MCP server {server} did not answer within {seconds:g} s", outcome=audit_pb2.OUTCOME_TIMED_OUT
    )


def unreadable(server: str) -> ToolError:
    """A server whose answer is not what the protocol, or the tool's own output schema, allows."""
    return ToolError(f"the MCP server {server} gave an answer that cannot be read")


def refused(server: str, code: int, told: str) -> ToolError:
    """A server that answered with an error of the protocol's, such as an unknown tool."""
    return ToolError(f"the MCP server {server} refused the call (code {code})", text=f"Error: {told}")


def _shown(block: ContentBlock) -> tuple[str, int]:
    """A block as the model is shown it, and its size in bytes; what is no text is named instead."""
    match block:
        case TextContent():
            return block.text, len(block.text.encode(errors="replace"))
        case ImageContent() | AudioContent():
            size = len(block.data) * 3 // 4
            return f"[{block.type} of type {block.mime_type}, {size} bytes]", size
        case ResourceLink():
            return f"[resource {block.uri}]", 0
        case EmbeddedResource():
            resource = block.resource
            if isinstance(resource, BlobResourceContents):
                size = len(resource.blob) * 3 // 4
                return f"[resource {resource.uri}, {size} bytes]", size
            return resource.text, len(resource.text.encode(errors="replace"))
