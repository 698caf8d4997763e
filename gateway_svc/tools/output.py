"""What a model sees of a long result: its head and its tail, with a note of what was left out between them."""


class HeadTail:
    """Takes any number of bytes and keeps the first and the last, max_bytes in all, in bounded memory."""

    def __init__(self, max_bytes: int) -> None:
        self.total = 0
        """The number of bytes taken."""
        self._max_head = max_bytes // 2
        self._max_tail = max_bytes - self._max_head
        self._head = bytearray()
        self._tail = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes."""
        self.total += len(chunk)
        room = self._max_head - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        if len(self._tail) > 2 * self._max_tail:
            del self._tail[: -self._max_tail]

    @property
    def truncated(self) -> bool:
        """Whether bytes were left out."""
        return self.total > self._max_head + self._max_tail

    def text(self) -> str:
        """The kept bytes as text; bytes that are not UTF-8 become U+FFFD."""
        if not self.truncated:
            return (self._head + self._tail).decode(errors="replace")
        left_out = self.total - self._max_head - self._max_tail
        head = self._head.decode(errors="replace")
        tail = self._tail[-self._max_tail :].decode(errors="replace")
        return f"{head}\n[… {left_out} bytes left out …]\n{tail}"


def shorten(text: str, max_characters: int, max_lines: int) -> tuple[str, bool]:
    """The text, cut in the middle if it exceeds the limits; and whether it was cut.

    The line that says what was left out is not counted.
    """
    lines = text.count("\n") + (not text.endswith("\n"))
    if len(text) <= max_characters and lines <= max_lines:
        return text, False
    head_end, tail_start = max_characters // 2, len(text) - (max_characters - max_characters // 2)
    if lines > max_lines:
        head_end = min(head_end, _after_newline(text, max_lines // 2))
        tail_start = max(tail_start, _after_newline(text, lines - (max_lines - max_lines // 2)))
    left_out = text[head_end:tail_start]
    told = f"[… {len(left_out)} characters left out …]"
    return f"{text[:head_end]}\n{told}\n{text[tail_start:]}", True


def _after_newline(text: str, count: int) -> int:
    """The position after the text's first `count` newlines."""
    position = 0
    for _ in range(count):
        position = text.index("\n", position) + 1
    return position
