"""One tool call of an application, from its intent to its row."""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from recording.args_key import ArgsKey
from recording.calls import AGENT_OWN, Scope, ToolResult
from recording.calls import ToolCall as Call
from recording.ids import uuid7
from recording.log import get_logger
from recording.logger import AuditLogger, AuditRefused, safe_audit, safe_intend
from recording.rows import close_call, decide, open_call
from recording.show import Arguments

log = get_logger(__name__)


class ToolCall:
    """A tool call as a context manager: its intent is on disk before the body runs, its row when the body has ended.

    The body may set what it knows about the result. An exception makes the outcome `failed` (a TimeoutError
    `timed_out`, a cancellation `cancelled`) and propagates. The record has its type, but not its message, which may
    hold content.
    """

    def __init__(
        self,
        logger: AuditLogger,
        scope: Scope,
        name: str,
        arguments: Mapping[str, Any],
        kept: Arguments = "shown",
        args_key: ArgsKey | None = None,
    ) -> None:
        self.id = str(uuid7())
        """The id of the row."""
        self.result_bytes: int | None = None
        """The size of the whole result, in bytes; None where the body does not say."""
        self.result_truncated = False
        """Whether the model saw only a part of it."""
        self.exit_code: int | None = None
        self.http_status: int | None = None
        self.error: str | None = None
        """Why the tool failed without raising: a sentence that quotes no content."""
        self._call = Call(self.id, "", name, _written(arguments))
        self._kept: Arguments = kept
        self._args_key = args_key
        self._logger = logger
        self._scope = scope
        self._started_at_ms, self._started = 0, 0.0

    def __enter__(self) -> Self:
        """Begins the call.

        Raises:
            AuditRefused: the mode is `strict`, and the intent could not be written to disk.
        """
        self._intent = open_call(self._call, self._scope, arguments=self._kept, key=self._args_key)
        decide(self._intent, AGENT_OWN)
        refusal = safe_intend(self._logger, self._intent)
        if refusal is not None:
            raise AuditRefused(refusal)
        self._process = os.getpid()
        self._started_at_ms, self._started = time.time_ns() // 1_000_000, time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process != os.getpid():  # the body forked: the call is the parent's
            return
        told = self.error if error is None else f"the tool raised {type(error).__name__}"
        result = ToolResult(
            text="",
            outcome=_outcome(error, self.error),
            error=told,
            exit_code=self.exit_code,
            http_status=self.http_status,
            result_bytes=self.result_bytes,
            result_truncated=self.result_truncated,
            started_at_ms=self._started_at_ms,
            duration_ms=round((time.monotonic() - self._started) * 1000),
        )
        safe_audit(self._logger, self._row(result))

    def _row(self, result: ToolResult) -> audit_pb2.AuditRow:
        try:
            return close_call(self._intent, result)
        except (TypeError, ValueError) as error:
            # the body's values fit no row, but the call must have one
            log.warning("ledger.result_unusable", error=type(error).__name__)
            known = ToolResult("", result.outcome, started_at_ms=self._started_at_ms, duration_ms=result.duration_ms)
            return close_call(self._intent, known)


def _written(arguments: Mapping[str, Any]) -> str:
    """The arguments as JSON. A value that JSON cannot represent is replaced by the name of its type."""
    try:
        return json.dumps(dict(arguments), ensure_ascii=False, default=_named)
    except (TypeError, ValueError, RecursionError):
        items = arguments.items() if isinstance(arguments, Mapping) else ()
        return json.dumps({key if isinstance(key, str) else _named(key): _named(value) for key, value in items})


def _named(value: object) -> str:
    return f"<{type(value).__name__}>"


def _outcome(error: BaseException | None, told: str | None) -> common_pb2.Outcome.ValueType:
    match error:
        case None:
            return common_pb2.OUTCOME_SUCCEEDED if told is None else common_pb2.OUTCOME_FAILED
        case TimeoutError():
            return common_pb2.OUTCOME_TIMED_OUT
        case asyncio.CancelledError() | KeyboardInterrupt() | SystemExit() | GeneratorExit():
            return common_pb2.OUTCOME_CANCELLED
        case _:
            return common_pb2.OUTCOME_FAILED
