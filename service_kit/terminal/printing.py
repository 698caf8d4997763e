"""Lines and tables on a terminal: styles where one reads them, plain text where a file or a program does."""

import os
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, dropwhile, groupby, repeat
from typing import IO, Annotated, Any, Self

from service_kit.printable import json_text
from service_kit.terminal.command import Option, echo
from service_kit.terminal.ids import short_ids
from service_kit.times import show_time

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


Json = Annotated[bool, Option("--json", help="Print one JSON object a line, errors too.")]
Wide = Annotated[bool, Option("--wide", help="Show all columns, whether the terminal has room for them or not.")]

_WORDS = re.compile(r"\s*(?:`[^`]+`|\S)+")
_PARTS = re.compile(r"[\w-]+|[^\w-]")
MIN_TEXT = 16
"""The cells of a text that is worth showing."""
MIN_SENTENCE = 38
"""Those of one that goes on below itself: of a UUID, and of signs behind it."""


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

    @property
    def style(self) -> str:
        """The style of its beginning."""
        return self._parts[0][1]

    def cut(self, width: int) -> "Text":
        """The text in at most width cells, with … in the place of what is left out."""
        if _cells(str(self)) <= width:
            return self
        text = str(self)
        while _cells(text) >= width:
            text = text[:-1]
        return Text(text + "…", self._parts[-1][1])

    def styled(self) -> str:
        """The line with what makes a terminal show its styles."""
        return "".join(
            f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style and text else text for text, style in self._parts
        )


class Sentence(Text):
    """A text that nothing is cut of: where a line ends, it goes on below, between two words."""

    def __init__(self, text: str = "", style: str = "", beneath: int | None = None) -> None:
        """beneath: the blanks that its further lines begin with; as many as the first one where it is not said."""
        super().__init__(text, style)
        self._beneath = beneath

    def lines(self, width: int | None, *, folds: bool = False) -> list[Text]:
        """It in lines of width cells; in one where a line has no end. folds: breaks words that have no room."""
        if width is None:
            return [self]
        left = [(letter, style) for text, style in self._parts for letter in text]
        lines = list[Text]()
        for whole in _wrapped(str(self), width, self._beneath, folds=folds):
            if lines:
                left = [*dropwhile(lambda one: one[0].isspace(), left)]
            blanks = len(whole) - len(whole.lstrip()) if lines else 0
            taken, left = left[: len(whole) - blanks], left[len(whole) - blanks :]
            line = Text(whole[:blanks])
            for style, letters in groupby(taken, key=lambda one: one[1]):
                line.append("".join(letter for letter, _ in letters), style)
            lines.append(line)
        return lines


class Table:
    """Rows in columns, each as wide as its widest cell. Columns in which nothing stands are not shown.

    Where a line has no room even for those that must stay, each row is a block of lines, a column a line.
    """

    def __init__(
        self,
        *columns: str,
        numbers: Collection[str] = (),
        least: Sequence[str] = (),
        text: str = "",
        ids: Collection[str] = (),
        wraps: bool = False,
    ) -> None:
        """Begins with the names of the columns.

        numbers: those that are written at the right of their columns. least: those that are left out where a line has
        no room for all, the first one first. text: the one that may be cut, which it is before others are left out.
        ids: those that are in their short forms where a line has an end. wraps: text, the last one, is a sentence: it
        goes on below itself, and others are left out before it is narrower than MIN_SENTENCE.
        """
        self._rows = [[Text(name, "bold") for name in columns]]
        self._is_right = [name in numbers for name in columns]
        self._least = [columns.index(name) for name in least]
        self._text = columns.index(text) if text else -1
        self._ids = [columns.index(name) for name in ids]
        self._wraps = wraps
        self.left_out: list[str] = []
        """The names of the columns that the last lines() had no room for."""

    def add_row(self, *cells: str | Text) -> None:
        """Adds a row."""
        self._rows.append([cell if isinstance(cell, Text) else Text(cell) for cell in cells])

    def lines(self, width: int | None = None) -> Iterator[Text]:
        """The table's lines, that of the names first. width: the cells of a line; None where it has no end."""
        rows = self._rows if width is None else self._with_short_ids()
        widths = [max(map(_cells, map(str, column))) for column in zip(*rows, strict=True)]
        shown = [at for at in range(len(widths)) if len(rows) == 1 or any(str(row[at]) for row in rows[1:])]
        self.left_out = []
        if width is not None and not self._fit(width, widths, shown):
            self.left_out = []
            yield from self._blocks(width)
            return
        for whole in rows:
            line, below = Text(), list[Text]()
            blanks = 0
            for at in shown:
                cell, cells, is_right = whole[at], widths[at], self._is_right[at]
                if at == self._text and self._wraps:
                    cell, *below = Sentence(str(cell), cell.style).lines(cells, folds=True)
                elif at == self._text:
                    cell = cell.cut(cells)
                if not str(cell):
                    blanks += cells + 2
                    continue
                left = cells - _cells(str(cell))
                line.append(" " * (blanks + left * is_right)).append(cell)
                blanks = 2 + left * (not is_right)
            yield line
            margin = " " * sum(widths[at] + 2 for at in shown[:-1])
            yield from (Text(margin).append(part) for part in below)

    def _with_short_ids(self) -> list[list[Text]]:
        short = {at: short_ids({str(row[at]) for row in self._rows[1:]}) for at in self._ids}
        head, *rows = self._rows
        return [
            head,
            *([Text(short[at][str(cell)]) if at in short else cell for at, cell in enumerate(row)] for row in rows),
        ]

    def _blocks(self, width: int) -> Iterator[Text]:
        """The rows one below the other, with all their columns; a cell goes on below itself."""
        names, *rows = self._rows
        margin = 2 + max(_cells(str(name)) for name in names)
        for number, row in enumerate(rows):
            if number:
                yield Text()
            for name, cell in zip(names, row, strict=True):
                parts = _folded(str(cell), max(width - margin, MIN_TEXT))
                for part, label in zip(parts, chain([name], repeat(Text())), strict=False):
                    blanks = " " * (margin - _cells(str(label)))
                    yield Text().append(label).append(blanks).append(part, cell.style)

    def _fit(self, width: int, widths: list[int], shown: list[int]) -> bool:
        """Cuts the text and leaves out columns until a line fits; whether it does in the end."""
        must = [at for at in shown if at == self._text or at not in self._least]
        most = width - sum(widths[at] + 2 for at in must if at != self._text)
        least_text = max(MIN_TEXT, min(MIN_SENTENCE, most)) if self._wraps else MIN_TEXT
        for least in (None, *self._least):
            if least in shown:
                shown.remove(least)
                self.left_out.append(str(self._rows[0][least]))
            room = width - sum(widths[at] + 2 for at in shown if at != self._text)
            room += 2 * (self._text not in shown)
            if self._text in shown and widths[self._text] > room >= least_text:
                widths[self._text] = room
            if room >= (widths[self._text] if self._text in shown else 0):
                return True
        return False


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

    @property
    def width(self) -> int | None:
        """The cells of a line where people read it; None where a line has no end."""
        return terminal_width(self.file) if self.is_terminal else None

    def print(self, what: str | Text | Table, style: str = "", *, wide: bool = False, cut: bool = False) -> None:
        """A line or a table. On a terminal it has the columns that there is room for, or all when it is to be wide.

        cut: a line ends with … where a terminal's does, unless it is a Sentence.
        """
        if self._stderr and stderr_is_json():
            if note := str(what):
                self.file.write(json_text({"note": note}, ascii_only=True) + "\n")
                self.file.flush()
            return
        width = None if wide else self.width
        if isinstance(what, (Table, Sentence)):
            lines = [*what.lines(width)]
        elif isinstance(what, Text):
            lines = [what]
        else:
            lines = [Text(part, style) for part in ([what] if cut or width is None else _wrapped(what, width))]
        if cut and width is not None and not isinstance(what, Sentence):
            lines = [line.cut(width) for line in lines]
        _Shown.clear()
        has_styles = self.is_terminal and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
        self.file.writelines(f"{line.styled() if has_styles else line}\n" for line in lines)
        self.file.flush()
        if isinstance(what, Table) and what.left_out:
            Printer(stderr=True).print(
                f"no room for {counted(len(what.left_out), 'column')}: --wide shows all", style="dim"
            )

    def take_line(self) -> None:
        """Empties a terminal's line, on which it has shown the ^C that was typed."""
        _Shown.clear()
        if self.is_terminal:
            self.file.write("\r\x1b[K")

    def print_time(self, ms: int) -> str:
        """A time in milliseconds since 1970: how long ago where people read it, else in RFC 3339."""
        return ago(time.time_ns() // 1_000_000 - ms) if self.is_terminal else show_time(ms)


def print_fields(fields: Mapping[str, Any]) -> None:
    """Prints what a command has done for programs: an object on one line."""
    echo(json_text(fields, ascii_only=True))


_form = {"stderr_is_json": False}


def put_stderr_in_json(wanted: bool) -> None:
    """Whether what a program says on stderr is for programs: an object a line, as its results are."""
    _form["stderr_is_json"] = wanted


def stderr_is_json() -> bool:
    """What put_stderr_in_json() has set."""
    return _form["stderr_is_json"]


def ago(ms: int) -> str:
    """How long ago something was."""
    for unit, name in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")):
        if ms >= unit:
            return f"{ms // unit} {name} ago"
    return "now" if ms > -1000 else "later"


def duration(ms: float | None) -> str:
    """Milliseconds in the unit that people read best; - where they are not known."""
    if ms is None:
        return "-"
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s" if ms < 60_000 else f"{ms / 60_000:.1f} min"


def counted(number: int, noun: str, nouns: str = "") -> str:
    """A number and what it counts, in the singular or the plural."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def clear_status() -> None:
    """Takes the line of progress() away, for who writes past a Printer."""
    _Shown.clear()


@contextmanager
def progress(printer: Printer, show: Callable[[int, int], str]) -> Iterator[Callable[[int, int], None]]:
    """One line on a terminal that says how far something is. Called with how much is done, and of how much."""

    def tell(done: int, total: int) -> None:
        _Shown.show(printer.file, show(done, total))

    try:
        yield tell if printer.is_terminal else lambda done, total: None
    finally:
        _Shown.clear()


class _Shown:
    """The line that says how far something is: whoever prints another line takes it away first."""

    line = ""
    file: IO[str] = sys.stderr

    @classmethod
    def show(cls, file: IO[str], line: str) -> None:
        if line != cls.line:
            cls.clear()
            cls.file, cls.line = file, line
            file.write(line)
            file.flush()

    @classmethod
    def clear(cls) -> None:
        if cls.line:
            cls.file.write("\r\x1b[K")
            cls.file.flush()
            cls.line = ""


def terminal_width(file: IO[str]) -> int | None:
    """The columns that a line of file may take: COLUMNS where it is set, else the terminal's; None where none reads."""
    if (columns := os.environ.get("COLUMNS", "")).isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(file.fileno()).columns or None
    except (OSError, ValueError):  # not a terminal, or a file of a test
        return None


def _wrapped(text: str, width: int, beneath: int | None = None, *, folds: bool = False) -> list[str]:
    """The lines of a text; those that are wider than width are broken between words, and go on behind beneath blanks,
    or with their indent.

    No command in backquotes is broken: it would be two when it is pasted. folds: it is, and so is a word, where it has
    no room.
    """
    lines = list[str]()
    for line in text.split("\n"):
        blanks = len(line) - len(line.lstrip()) if beneath is None else beneath
        lines.append("")
        for word in _WORDS.findall(line) if _cells(line) > width else [line]:
            if not lines[-1].strip() or _cells(lines[-1] + word) <= width:
                lines[-1] += word
            else:
                lines.append(" " * blanks + word.lstrip())
            if folds and _cells(lines[-1]) > width:
                lines[-1:] = _folded(lines[-1], width)
    return lines


def _folded(text: str, width: int) -> list[str]:
    """Text in pieces of at most width cells; one, which is empty, where there is none.

    An id, or another word, is broken only where it is wider than that.
    """
    pieces = [""]
    for part in _PARTS.findall(text):
        for some in [part] if _cells(part) <= width else part:
            if pieces[-1] and _cells(pieces[-1] + some) > width:
                pieces.append("")
            pieces[-1] += some
    return pieces


def _cells(text: str) -> int:
    """How many cells of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )
