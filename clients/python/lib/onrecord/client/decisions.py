"""Decisions on tool calls that ask, and what a turn has told so far: what both halves of the client share."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from onrecord.gateway.v1 import gateway_pb2 as pb


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision on a tool call that asks."""

    allow: bool
    reason: str = ""
    """Told to the model when the call may not run."""


def ask_in_terminal(call: pb.ToolCallStarted) -> Answer:
    """Asks who sits at the terminal."""
    said = input(f"{call.tool_name} {call.args_summary}\nallow? [y/N] ")
    return Answer(said.strip().lower() in ("y", "yes"), "the user said no")


class Heard:
    """What a turn has told so far."""

    def __init__(self) -> None:
        self.started: pb.TurnStarted | None = None
        self.finished: pb.TurnFinished | None = None
        """Set when the turn has ended; why, and what it took."""
        self.answer = ""
        """All text so far."""

    @property
    def session_id(self) -> str:
        """The session, for the next turn; empty before the first event."""
        return self.started.session_id if self.started else ""

    @property
    def turn_id(self) -> str:
        """The turn, for cancel(); empty before the first event."""
        return self.started.turn_id if self.started else ""

    def hear(self, event: pb.TurnEvent) -> pb.ToolCallStarted | None:
        """Takes an event; returns the call in it that asks."""
        match event.WhichOneof("event"):
            case "turn_started":
                self.started = event.turn_started
            case "text_delta":
                self.answer += event.text_delta.text
            case "tool_call_started" if event.tool_call_started.awaiting_answer:
                return event.tool_call_started
            case "turn_finished":
                self.finished = event.turn_finished
        return None


def answer_request(call_id: str, answer: Answer | bool) -> pb.AnswerToolCallRequest:
    """The request that gives an answer."""
    given = answer if isinstance(answer, Answer) else Answer(answer)
    return pb.AnswerToolCallRequest(id=call_id, allow=given.allow, reason=given.reason)


@contextmanager
def unless_too_late() -> Iterator[None]:
    """A call that waits no more was answered by others, or was given up: the turn goes on, and its events tell."""
    try:
        yield
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
