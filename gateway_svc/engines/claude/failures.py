"""How a run of Claude's program ended: the turn's stop reason, or the error for its caller."""

import re

from onrecord.gateway.v1 import gateway_pb2 as pb

from gateway_svc.engines.claude.lines import as_word
from gateway_svc.engines.wire.failures import presentable
from gateway_svc.engines.wire.fields import Fields
from gateway_svc.errors import (
    EngineBrokeOff,
    EngineError,
    EngineNotConfigured,
    EngineProtocolError,
    EngineRateLimited,
    EngineRejected,
    EngineUnavailable,
    ModelNotFound,
)

ENGINE = "claude"
NOT_LOGGED_IN = "not logged in: run Claude's program once and log in, or set ANTHROPIC_API_KEY for the gateway"
KINDS: dict[str, type[EngineError]] = {
    "authentication_failed": EngineRejected,
    "oauth_org_not_allowed": EngineRejected,
    "billing_error": EngineRejected,
    "invalid_request": EngineRejected,
    "model_not_found": ModelNotFound,
    "rate_limit": EngineRateLimited,
    "overloaded": EngineUnavailable,
    "server_error": EngineUnavailable,
}
"""The program's names for its failures, in the field `error` of a line."""
LOGIN_WORDS = re.compile(r"/login|Invalid API key|authentication_error|OAuth token", re.IGNORECASE)
LIMIT_WORDS = re.compile(r"(usage|rate) limit|hit your limit", re.IGNORECASE)
UNKNOWN_OPTION = re.compile(r"unknown option '(--?[\w-]{1,64})")
LOST_SESSION = "No conversation found with session ID"
STOP_REASONS = {
    "end_turn": pb.STOP_REASON_COMPLETED,
    "stop_sequence": pb.STOP_REASON_COMPLETED,
    "max_tokens": pb.STOP_REASON_MAX_OUTPUT_TOKENS,
    "model_context_window_exceeded": pb.STOP_REASON_MAX_OUTPUT_TOKENS,
    "refusal": pb.STOP_REASON_CONTENT_FILTER,
}
"""All reasons of the Messages API for which an answer is complete; any other is not an end."""
SUBTYPES = {
    "error_max_turns": pb.STOP_REASON_MAX_STEPS,
    "error_max_budget_usd": pb.STOP_REASON_MAX_COST,
}
WITHHELD = (pb.STOP_REASON_CONTENT_FILTER, pb.STOP_REASON_MAX_OUTPUT_TOKENS)
"""Stop reasons of the model that hold even if the program calls them a failure."""


class SessionLost(Exception):
    """The program no longer has the session that it was to continue."""


def not_startable(command: str, error: OSError) -> EngineNotConfigured:
    """The error for a program that could not be started."""
    reason = "not found" if isinstance(error, FileNotFoundError) else (error.strerror or type(error).__name__)
    return EngineNotConfigured(
        f"engine claude: cannot run {presentable(command)!r}: {reason}."
        " Install Claude Code, or set GATEWAY_CLAUDE_COMMAND to its path",
        "claude",
    )


def stop_reason(model: str, result: Fields, code: str, end: str = "") -> pb.StopReason.ValueType:
    """Why a run with this result stopped.

    Args:
        model: the model that was asked for.
        result: the result that holds.
        code: the program's name for its last failure, if there was one.
        end: why the model's last message ended, for programs whose results do not say so.

    Raises:
        EngineError: the run failed, or ended in an unknown way.
    """
    subtype, reason = as_word(result.get("subtype")), result.get("stop_reason")
    if (limit := SUBTYPES.get(subtype)) is not None:
        return limit
    if code == "max_output_tokens":
        return pb.STOP_REASON_MAX_OUTPUT_TOKENS
    ended = STOP_REASONS.get(as_word(reason))
    if ended in WITHHELD:
        return ended
    # without a subtype, the end of the model's answer decides
    succeeded = subtype == "success" or (result.get("subtype") is None and end in STOP_REASONS)
    if result.get("is_error") is not False or not succeeded:
        raise failure(model, code, reported_text(result), result.get("api_error_status"), subtype)
    return ended_by(model, as_word(reason) or "unknown") if reason is not None else _by_message(model, end)


def ended_by(model: str, reason: str) -> pb.StopReason.ValueType:
    """The stop reason for an answer of the model that ended for this reason.

    Raises:
        EngineError: no answer ends for this reason.
    """
    ended = STOP_REASONS.get(reason)
    if ended is None:
        raise EngineProtocolError(ENGINE, model, f"stopped for the reason {presentable(reason)!r}, which is no answer")
    return ended


def _by_message(model: str, end: str) -> pb.StopReason.ValueType:
    """For a success without a reason. The stream may end with a call, since not every result is shown."""
    return pb.STOP_REASON_COMPLETED if end in ("", "tool_use") else ended_by(model, end)


def reported_text(result: Fields) -> str:
    """The text in a result that describes its failure."""
    errors = result.get("errors")
    said = [result.get("result"), *(errors if isinstance(errors, list) else ())]
    return " ".join(part for part in said if isinstance(part, str))


def failure(model: str, code: str, reported: str, http_status: object = None, subtype: str = "") -> EngineError:
    """The error for a failure that the program reports. Its words are for the caller alone: they may be content."""
    status = http_status if type(http_status) is int and 400 <= http_status <= 599 else None
    kind = KINDS.get(code)
    if kind is None:
        # Older programs have no codes, only words.
        if LOGIN_WORDS.search(reported):
            code = "authentication_failed"
        kind = _kind_by_words(reported, status)
    reason = presentable(reported) or f"failed without a reason ({presentable(subtype) or 'of no known kind'})"
    if code == "authentication_failed":
        reason = f"{NOT_LOGGED_IN} (it says: {reason})"
    return kind(ENGINE, model, reason, status)


def _kind_by_words(reported: str, status: int | None) -> type[EngineError]:
    if status == 429 or LIMIT_WORDS.search(reported):
        return EngineRateLimited
    if status is not None and status >= 500:
        return EngineUnavailable
    return EngineRejected if status is not None or LOGIN_WORDS.search(reported) else EngineProtocolError


def died(model: str, exit_code: int | None, stderr: str, skipped_lines: int, *, begun: bool) -> EngineError:
    """The error for a run without a result. Of stderr, which may hold content, it quotes at most an option's name."""
    ended = (
        f"ended by signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"ended with code {exit_code}"
    )
    if option := UNKNOWN_OPTION.search(stderr):
        return EngineRejected(ENGINE, model, f"does not know the option {option[1]}: install a newer Claude Code")
    if "cannot be used with root" in stderr:
        reason = "refuses the permission mode bypassPermissions to root: run the gateway as another user"
        return EngineRejected(ENGINE, model, reason)
    if LOGIN_WORDS.search(stderr):
        return EngineRejected(ENGINE, model, NOT_LOGGED_IN)
    if begun:
        return EngineBrokeOff(ENGINE, model, f"{ended} in the middle of an answer")
    if skipped_lines:
        reason = f"{ended} after {skipped_lines} lines that are not its JSON: is GATEWAY_CLAUDE_COMMAND Claude Code?"
        return EngineProtocolError(ENGINE, model, reason)
    return EngineProtocolError(ENGINE, model, f"{ended} before it said anything")
