"""How a tool call of Claude's program ended, by its `tool_result`, and what the conversation keeps of the result."""

import re

from onrecord.common.v1 import common_pb2

from gateway_svc.engines.claude.lines import as_object, as_word, blocks
from gateway_svc.engines.wire.fields import Fields
from recording.calls import ToolResult

MAX_KEPT_CHARACTERS = 50_000
"""How much of a result our transcript keeps; the program's own keeps all of it."""
EXIT_CODE = re.compile(r"Exit code (\d{1,3})\b")
PERSISTED = "<persisted-output>"
"""The start of a result of which the model saw the first part, and where the rest is."""
NOT_RUN = re.compile(r"<tool_use_error>(Error: )?(No such tool available|InputValidationError)")
TIMED_OUT = re.compile(r"Exit code 143\nCommand timed out after [\d.]+ ?(ms|s|m|h)")
"""What the program itself writes when it ends a command; the command's output follows."""
NO_PERMISSION = "Claude requested permissions to"
"""The start of the result of a call without permission, in programs that send no `permission_denied` line."""

CANCELLED = ToolResult("The call was cancelled.", common_pb2.OUTCOME_CANCELLED, "cancelled")
INTERRUPTED = ToolResult(
    "The call's result never came.",
    common_pb2.OUTCOME_INTERRUPTED,
    "Claude's program ended before it told the call's result",
)


def observed_result(name: str, block: Fields, line: Fields, *, denied: bool) -> ToolResult:
    """The result of a call, without its times.

    Args:
        name: the tool's name.
        block: the `tool_result`.
        line: the line that it came in, which may have details in `tool_use_result`.
        denied: whether the program has said that the call had no permission.
    """
    shown, size = _shown(block.get("content"))
    detail = line.get("tool_use_result")
    told = ToolResult(
        shown if len(shown) <= MAX_KEPT_CHARACTERS else shown[:MAX_KEPT_CHARACTERS] + "\n[… cut …]",
        result_bytes=size,
        result_truncated=shown.startswith(PERSISTED),
    )
    if not _failed(block):
        return _with(told, exit_code=_exit_code_of_success(name, detail), http_status=_http_status(name, detail))
    if denied or shown.startswith(NO_PERMISSION):
        return _with(told, common_pb2.OUTCOME_DENIED, "the call had no permission")
    if NOT_RUN.match(shown):
        return _with(told, common_pb2.OUTCOME_INVALID_CALL, "no such tool, or arguments that do not fit it")
    # The program's own text, which shells out of the model's reach cannot forge: it is ahead of the output.
    exited = EXIT_CODE.match(shown) if name == "Bash" else None
    if exited and TIMED_OUT.match(shown):
        return _with(told, common_pb2.OUTCOME_TIMED_OUT, "the command ran past its time limit")
    if exited:
        return _with(told, exit_code=int(exited[1]))
    return _with(told, common_pb2.OUTCOME_FAILED, "the tool reported an error")


def _failed(block: Fields) -> bool:
    """Whether a result is an error; that of a tool run by the model's server says so in its content."""
    error = as_word(as_object(block.get("content")).get("type")).endswith("error")
    return error or block.get("is_error") not in (None, False)


def _with(
    told: ToolResult,
    outcome: common_pb2.Outcome.ValueType = common_pb2.OUTCOME_SUCCEEDED,
    error: str | None = None,
    exit_code: int | None = None,
    http_status: int | None = None,
) -> ToolResult:
    return ToolResult(told.text, outcome, error, exit_code, http_status, told.result_bytes, told.result_truncated)


def _shown(content: object) -> tuple[str, int]:
    """The text of a result, and its whole size in bytes. Images count, but are named instead of kept."""
    parts, size = [], 0
    for block in blocks(content if isinstance(content, list | dict) else as_word(content)):
        if block.get("type") == "text":
            part = as_word(block.get("text"))
            parts.append(part)
            size += len(part.encode())
        else:
            parts.append(f"[{as_word(block.get('type'))}]")
            source = block.get("source")
            data = source.get("data") if isinstance(source, dict) else None
            size += len(data) if isinstance(data, str) else 0
    return "\n".join(parts), size


def _exit_code_of_success(name: str, detail: object) -> int | None:
    """0 if the program ran a command to its end and does not treat another code as success, such as grep's 1."""
    ran = name == "Bash" and isinstance(detail, dict) and detail.get("interrupted") is False
    unclear = isinstance(detail, dict) and (detail.get("backgroundTaskId") or detail.get("returnCodeInterpretation"))
    return 0 if ran and not unclear else None


def _http_status(name: str, detail: object) -> int | None:
    code = detail.get("code") if name == "WebFetch" and isinstance(detail, dict) else None
    return code if isinstance(code, int) and 100 <= code <= 599 else None
