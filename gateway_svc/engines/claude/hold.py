"""Holds each tool call of the program until its intent is on the record, and, where that is promised, synced.

Before it runs a tool, a subagent's included, the program asks by a PreToolUse hook of its control protocol: a line of
type `control_request`, whose answer it waits for. An answer without a decision leaves the permission to its own rules;
`deny` is for mode `strict`, in which what cannot be recorded does not run.
"""

from collections.abc import Mapping
from typing import Any

from gateway_svc.engines.claude.calls import Calls
from gateway_svc.engines.claude.conversation import tool_call
from gateway_svc.engines.claude.lines import as_id, as_object
from gateway_svc.engines.wire.fields import Fields

CALLBACK = "onrecord-intent"
SECONDS = 3600
"""How long the program waits for an answer at most; a turn ends before."""

HOLD_TOOLS: Mapping[str, Any] = {
    "type": "control_request",
    "request_id": "hold",
    "request": {
        "subtype": "initialize",
        "hooks": {"PreToolUse": [{"matcher": None, "hookCallbackIds": [CALLBACK], "timeout": SECONDS}]},
    },
}
"""What the program is told before its prompt."""


async def answer(line: Fields, calls: Calls) -> dict[str, Any] | None:
    """The answer to a line of the program's, once the call that it asks for may run; None if it asks nothing.

    What else it may ask is refused, since it would wait for the answer.
    """
    if line.get("type") != "control_request":
        return None
    request = as_object(line.get("request"))
    if request.get("callback_id") != CALLBACK:
        refused = {"subtype": "error", "request_id": line.get("request_id"), "error": "not offered"}
        return {"type": "control_response", "response": refused}
    asked = as_object(request.get("input"))
    tool_use_id = as_id(request.get("tool_use_id")) or as_id(asked.get("tool_use_id"))
    block = {"id": tool_use_id, "name": asked.get("tool_name"), "input": asked.get("tool_input")}
    refusal = await calls.hold(tool_call(block, ""))
    said: dict[str, Any] = {}
    if refusal:
        decision = {"permissionDecision": "deny", "permissionDecisionReason": refusal}
        said = {"hookSpecificOutput": {"hookEventName": "PreToolUse", **decision}}
    response = {"subtype": "success", "request_id": line.get("request_id"), "response": said}
    return {"type": "control_response", "response": response}
