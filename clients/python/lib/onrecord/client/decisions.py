"""Decisions on tool calls, and the state of a turn: what the asyncio and the blocking client share."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from onrecord.common.v1 import common_pb2
from onrecord.gateway.v1 import approvals_pb2
from onrecord.gateway.v1 import gateway_pb2 as pb

from recording.channel.details import info_of


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a tool call that asks may run."""

    allow: bool
    reason: str = ""
    """Shown to the model if the call may not run."""


def ask_in_terminal(call: pb.ToolCallStarted) -> Decision:
    """Asks the user at the terminal."""
    said = input(f"{call.tool_name} {call.args_summary}\nallow? [y/N] ")
    return Decision(said.strip().lower() in ("y", "yes"), "the user said no")


class TurnFailed(grpc.RpcError):
    """A turn began, and failed."""

    def __init__(self, finished: pb.TurnFinished) -> None:
        super().__init__(finished.error.message)
        self.finished = finished
        """The turn's last event: `error` with its details, and what the turn used."""

    def code(self) -> grpc.StatusCode:
        """What kind of error it was; UNKNOWN if this version does not know the code."""
        return _CODES.get(self.finished.error.code, grpc.StatusCode.UNKNOWN)

    def details(self) -> str:
        """A sentence for people."""
        return str(self.finished.error.message)


MAX_ATTEMPTS = 8
"""Their waits are at least 4.5 s in all: a channel that could not connect tries again after 1.2 s, then 1.9 s."""
FIRST_WAIT_SECONDS = 0.1
MAX_WAIT_SECONDS = 3.0

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class TurnState:
    """The state of a turn, from its events so far."""

    def __init__(self) -> None:
        self.accepted: pb.TurnAccepted | None = None
        self.started: pb.TurnStarted | None = None
        self.finished: pb.TurnFinished | None = None
        """Set when the turn has ended: why, and what it used."""
        self.sequence = 0
        """The number of the last event."""
        self.answer = ""
        """All text so far."""

    @property
    def session_id(self) -> str:
        """The session's id, for the next turn; empty before the first event."""
        return self.accepted.session_id if self.accepted else ""

    @property
    def turn_id(self) -> str:
        """The turn's id; empty before the first event."""
        return self.accepted.turn_id if self.accepted else ""

    def raise_failure(self) -> None:
        """Raises TurnFailed if the turn has ended with an error."""
        if self.finished is not None and self.finished.stop_reason == pb.STOP_REASON_FAILED:
            raise TurnFailed(self.finished)

    def update(self, event: pb.TurnEvent) -> pb.ToolCallStarted | None:
        """Applies an event; returns the tool call in it if it asks."""
        self.sequence = event.sequence or self.sequence
        match event.WhichOneof("event"):
            case "turn_accepted":
                self.accepted = event.turn_accepted
            case "turn_started":
                self.started = event.turn_started
            case "text_delta":
                self.answer += event.text_delta.text
            case "tool_call_started" if event.tool_call_started.HasField("pending"):
                return event.tool_call_started
            case "turn_finished":
                self.finished = event.turn_finished
        return None


def answer_request(
    call: pb.ToolCallStarted | approvals_pb2.PendingToolCall, decision: Decision | bool
) -> approvals_pb2.AnswerToolCallRequest:
    """The request that sends a decision on a call, and on no other arguments than those that were shown."""
    made = decision if isinstance(decision, Decision) else Decision(decision)
    verdict = common_pb2.VERDICT_ALLOWED if made.allow else common_pb2.VERDICT_DENIED
    return approvals_pb2.AnswerToolCallRequest(
        tool_call_id=call.tool_call_id, verdict=verdict, reason=made.reason, args_digest=call.args_digest
    )


def wait_before(error: grpc.RpcError, failures: int, *, again: bool) -> float | None:
    """How many seconds to wait before the next attempt; None if there is none to be made.

    `failures` are the attempts that failed one after another; `again`: whether another one runs nothing twice.
    """
    if not again or failures >= MAX_ATTEMPTS or not _is_passing(error):
        return None
    most: float = min(MAX_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (failures - 1))
    return random.uniform(most / 2, most)  # noqa: S311 - so that not all clients come at once


def _is_passing(error: grpc.RpcError) -> bool:
    """Whether the gateway is away, or a balancer such as Envoy cut the stream of one that is: of its RST_STREAM gRPC
    makes INTERNAL (grpc/doc/PROTOCOL-HTTP2.md), which no gateway said.
    """
    if error.code() is grpc.StatusCode.INTERNAL:
        return "RST_STREAM" in (error.details() or "")
    return error.code() is grpc.StatusCode.UNAVAILABLE


@contextmanager
def ignore_too_late() -> Iterator[None]:
    """Ignores that a call no longer waits: somebody else decided, the rules changed, or it timed out. The turn's events
    tell which.
    """
    try:
        yield
    except grpc.RpcError as error:
        if error.code() not in _TOO_LATE and info_of(error).reason != "POLICY_CHANGED":
            raise


_TOO_LATE = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS)
