"""The part of a model's reasoning that is kept."""

from collections import deque

from gateway_svc.engines.wire.fields import clean
from service_kit.bounds import REASONING_CHARACTERS

_HALF = REASONING_CHARACTERS // 2
_LEFT_OUT = "\n[… {} characters left out …]\n"


class Thoughts:
    """Takes pieces, and keeps the first and the last half of REASONING_CHARACTERS."""

    def __init__(self) -> None:
        self._first: list[str] = []
        self._last: deque[str] = deque()
        self._room = _HALF
        self._last_characters = 0
        self._left_out = 0

    def __bool__(self) -> bool:
        return bool(self._first)

    def append(self, piece: str) -> None:
        """Takes the next piece."""
        if begin := piece[: self._room]:
            self._first.append(begin)
            self._room -= len(begin)
        if not (rest := piece[len(begin) :]):
            return
        self._last.append(rest[-_HALF:])
        self._left_out += len(rest) - len(self._last[-1])
        self._last_characters += len(self._last[-1])
        while self._last_characters - len(self._last[0]) >= _HALF:
            gone = len(self._last.popleft())
            self._last_characters -= gone
            self._left_out += gone

    def text(self) -> str:
        """What is kept, with a mark where some was left out."""
        mark = _LEFT_OUT.format(self._left_out) if self._left_out else ""
        return clean("".join((*self._first, mark, *self._last)))
