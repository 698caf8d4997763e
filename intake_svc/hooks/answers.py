"""What a hook answers, in each agent's own form. Where a hook may go on, it says nothing."""

from typing import Any

from intake_svc.hooks.tables import TABLES

CANNOT_ASK = "it asks a person, which hooks of this agent cannot: it is refused"
NOT_RECORDED = "The tool was not run: it may only run when its call can be recorded, and that cannot be done now."


def refusal(agent: str, reason: str) -> dict[str, Any]:
    """The answer that keeps a tool from running."""
    return _answer(agent, "deny", reason)


def question(agent: str, reason: str) -> dict[str, Any]:
    """The answer that has the agent ask a person; a refusal where it could not."""
    if TABLES[agent].asks:
        return _answer(agent, "ask", reason)
    return refusal(agent, f"{reason} ({CANNOT_ASK})" if reason else f"By a rule: {CANNOT_ASK}.")


def _answer(agent: str, verdict: str, reason: str) -> dict[str, Any]:
    decision = {"permissionDecision": verdict, "permissionDecisionReason": reason}
    specific = {"hookSpecificOutput": {"hookEventName": "PreToolUse", **decision}}
    match agent:
        case "claude" | "codex":
            return specific
        case "copilot":
            return decision | specific  # of which VS Code reads the second
        case "cursor":
            return {"permission": verdict, "user_message": reason, "agent_message": reason}
    return {"decision": verdict, "reason": reason}
