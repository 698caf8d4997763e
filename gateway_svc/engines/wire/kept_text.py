"""The part of a long text that is kept, such as of a model's reasoning."""

from collections import deque

from gateway_svc.engines.wire.fields import clean
from service_kit.bounds import REASONING_CHARACTERS

_LEFT_OUT = "\n[… {} characters left out …]\n"


class KeptText:
    """Takes pieces, and keeps the first and the last half of `most` characters."""

    def __init__(self, most: int = REASONING_CHARACTERS) -> None:
        self._half = most // 2
        self._first: list[str] = []
        self._last: deque[str] = deque()
        self._room = self._half
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
        self._last.append(rest[-self._half :])
        self._left_out += len(rest) - len(self._last[-1])
        self._last_characters += len(self._last[-1])
        while self._last_characters - len(self._last[0]) >= self._half:
            gone = len(self._last.popleft())
            self._last_characters -= gone
            self._left_out += gone

    def text(self) -> str:
        """What is kept, with a mark where some was left out."""
        mark = _LEFT_OUT.format(self._left_out) if self._left_out else ""
        return clean("".join((*self._first, mark, *self._last)))
