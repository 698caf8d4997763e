"""What assembles a streamed answer: the base of each wire format's own class."""

from functools import cached_property

from gateway_svc.engines import StepResult
from gateway_svc.engines.wire.fields import Fields
from gateway_svc.errors import EngineBrokeOff, EngineError
from service_kit.bounds import Tally

LEAST_DIFFERENT_CHARACTERS = 4
"""What has fewer may come again by chance: indentation, a rule of dashes, `haha`."""


class BadEnd(ValueError):
    """An answer ended badly. The message says how; it follows the engine's name."""

    def __init__(self, how: str, kind: type[EngineError] = EngineBrokeOff) -> None:
        """`kind` is the error that it becomes if it lasts."""
        super().__init__(how)
        self.kind = kind


class Answer:
    """Assembles one streamed answer. Each wire format has its own subclass."""

    complete = False
    """Whether the answer is complete if the stream ends here. Nothing that follows can spoil it."""
    ended = False
    """Whether the server has said that nothing more follows."""
    is_waited_for = False
    """Whether the end was told before the answer was complete: what is missing comes soon, or never."""

    why_incomplete = "its stream ended before the answer was complete"
    """What is told of an answer that was not complete when its stream ended."""

    @cached_property
    def tally(self) -> Tally:
        """What it has used of its bounds."""
        return Tally()

    def take(self, chunk: Fields) -> str:
        """Takes a chunk; returns the text in it. Raises ValueError if it is malformed, BadEnd, Exceeded."""
        raise NotImplementedError

    def done(self) -> None:
        """Takes `[DONE]`, the end of OpenAI's streams. Some servers send it too early, others send nothing else."""

    def count(self, chunk: Fields) -> None:
        """Takes what a chunk says of tokens. Some servers send it behind the end."""

    def result(self, model: str) -> StepResult:
        """The whole answer; model is the requested one. Raises ValueError, BadEnd, Exceeded."""
        raise NotImplementedError


class SoFar:
    """Finds what is new in each piece, where a server sends all of the text so far in each, as DashScope's does.

    It does as long as each piece begins with the one before it; the pieces of other servers do not.
    """

    def __init__(self) -> None:
        self._last = ""
        self._grows = True
        self._is_sure = False

    def new(self, piece: str) -> str:
        """The part of the next piece that has not been in an earlier one."""
        if not self._grows or not piece:
            return piece
        last, self._last = self._last, piece
        self._grows = piece.startswith(last)
        if self._grows and not self._is_sure and len(piece) > len(last):
            self._is_sure = len(set(last)) >= LEAST_DIFFERENT_CHARACTERS
        return piece.removeprefix(last) if self._is_sure else piece
