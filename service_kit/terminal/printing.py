"""Lines and tables on a terminal: styles where one reads them, plain text where a file or a program does."""

import os
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import IO, Self

_STYLES = {
    "": "",
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "magenta": "35",
    "cyan": "36",
}
"""ECMA-48, 8.3.117 (SGR)."""


class Text:
    """A line whose parts have styles."""

    def __init__(self, text: str = "", style: str = "") -> None:
        self._parts = [(text, style)]

    def append(self, text: "str | Text", style: str = "") -> Self:
        """Adds text at the end."""
        self._parts += text._parts if isinstance(text, Text) else [(text, style)]
        return self

    def __str__(self) -> str:
        return "".join(text for text, _ in self._parts)

    def styled(self) -> str:
        """The line with what makes a terminal show its styles."""
        return "".join(
            f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style and text else text for text, style in self._parts
        )


class Table:
    """Rows in columns, each as wide as its widest cell: nothing is cut."""

    def __init__(self, *columns: str, numbers: Collection[str] = ()) -> None:
        """Begins with the names of the columns. numbers: those that are written at the right of their columns."""
        self._rows = [[Text(name, "bold") for name in columns]]
        self._is_right = [name in numbers for name in columns]

    def add_row(self, *cells: str | Text) -> None:
        """Adds a row."""
        self._rows.append([cell if isinstance(cell, Text) else Text(cell) for cell in cells])

    def lines(self) -> Iterator[Text]:
        """The table's lines, that of the names first."""
        widths = [max(map(_cells, map(str, column))) for column in zip(*self._rows, strict=True)]
        for row in self._rows:
            line = Text()
            blanks = 0
            for cell, width, is_right in zip(row, widths, self._is_right, strict=True):
                if not str(cell):
                    blanks += width + 2
                    continue
                left = width - _cells(str(cell))
                line.append(" " * (blanks + left * is_right)).append(cell)
                blanks = 2 + left * (not is_right)
            yield line


class Printer:
    """Prints on stdout, or on stderr."""

    def __init__(self, *, stderr: bool = False) -> None:
        self._stderr = stderr

    @property
    def file(self) -> IO[str]:
        """Where it prints."""
        return sys.stderr if self._stderr else sys.stdout

    @property
    def is_terminal(self) -> bool:
        """Whether people read it as it is printed."""
        return self.file.isatty()

    def print(self, what: str | Text | Table, style: str = "") -> None:
        """A line or a table."""
        lines = what.lines() if isinstance(what, Table) else [what if isinstance(what, Text) else Text(what, style)]
        has_styles = self.is_terminal and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
        self.file.writelines(f"{line.styled() if has_styles else line}\n" for line in lines)
        self.file.flush()


@contextmanager
def progress(printer: Printer, show: Callable[[int, int], str]) -> Iterator[Callable[[int, int], None]]:
    """One line on a terminal that says how far something is. Called with how much is done, and of how much."""
    shown = ""

    def tell(done: int, total: int) -> None:
        nonlocal shown
        if (line := show(done, total)) != shown:
            printer.file.write(f"\r\x1b[K{line}")
            printer.file.flush()
            shown = line

    try:
        yield tell if printer.is_terminal else lambda done, total: None
    finally:
        if shown:
            printer.file.write("\r\x1b[K")
            printer.file.flush()


def terminal_width(file: IO[str]) -> int | None:
    """The columns that a line of file may take: COLUMNS where it is set, else the terminal's; None where none reads."""
    if (columns := os.environ.get("COLUMNS", "")).isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(file.fileno()).columns or None
    except (OSError, ValueError):  # not a terminal, or a file of a test
        return None


def _cells(text: str) -> int:
    """How many cells of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )
