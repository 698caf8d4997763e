"""What a terminal is shown of text that others wrote: nothing of it is obeyed, and no two names look alike.

Names, labels, arguments and messages show what cannot be seen as escapes (`printable`). A model's own text loses what
a terminal would obey, and keeps its letters, line breaks and emoji (`PlainText`).
"""

import json
import re
import unicodedata
from enum import Enum, auto
from typing import Any

_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Default_Ignorable_Code_Point of the Unicode Character Database: most of them are letters to str.isprintable."""

_WORD = re.compile(r"\w+")
_LOOKALIKES = frozenset({"ARMENIAN", "CHEROKEE", "COPTIC", "CYRILLIC", "GREEK", "LISU"})
"""Scripts with letters that look like Latin ones, as the Unicode Character Database begins the names of characters."""

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Controls but tab and line feed, what turns writing round, what hides letters."""
_ESCAPE, _BELL, _CSI, _END = "\x1b", "\x07", "\x9b", "\x9c"
_STRINGS = "\x90\x98\x9d\x9e\x9f"
"""What begins a text for the terminal itself (ECMA-48, 5.6), such as a title or the address of a link."""
MAX_STRING_CHARACTERS = 4096


def printable(text: str) -> str:
    """The text with escapes, as in Python, for all that is no visible character and no plain blank, and for what makes
    a word look like another: letters of other scripts among Latin ones, and other forms of ASCII letters and digits.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _WORD.sub(_undisguised, text)
    return "".join(character if _is_visible(character) else _escape(character) for character in text)


def json_text(value: Any, *, ascii_only: bool) -> str:
    """A value as JSON that says the same and in which nothing acts on a terminal or breaks a line."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_visible(character) else _json_escape(character) for character in text)


class _State(Enum):
    TEXT = auto()
    ESCAPE = auto()
    SEQUENCE = auto()
    STRING = auto()
    STRING_ESCAPE = auto()


class PlainText:
    """A model's text, which comes in pieces: what a terminal would obey is left out, also where it was cut in two."""

    def __init__(self) -> None:
        self._state = _State.TEXT
        self._string = 0

    def feed(self, piece: str) -> str:
        """What can be shown of the next piece."""
        if self._state is _State.TEXT and not _OBEYED.search(piece):
            return piece
        return "".join(filter(self._shows, piece))

    def end(self) -> None:
        """The text has ended, and what follows is another one."""
        self._state = _State.TEXT

    def _shows(self, character: str) -> bool:
        """Takes a character. What ends a sequence without being a part of it is taken as text."""
        match self._state:
            case _State.ESCAPE if character == "[":
                self._state = _State.SEQUENCE
            case _State.ESCAPE if character in "]PX^_":
                self._begin_string()
            case _State.ESCAPE if " " <= character <= "~":
                self._state = _State.ESCAPE if character < "0" else _State.TEXT
            case _State.SEQUENCE if " " <= character <= "~":
                self._state = _State.SEQUENCE if character < "@" else _State.TEXT
            case _State.STRING if character not in (_BELL, _END, "\n"):
                self._string += 1
                self._state = _State.STRING_ESCAPE if character == _ESCAPE else self._state
                if self._string > MAX_STRING_CHARACTERS:
                    self._state = _State.TEXT
            case _State.STRING if character != "\n":
                self._state = _State.TEXT
            case _State.STRING_ESCAPE:
                self._state = _State.TEXT if character == "\\" else _State.ESCAPE
                return character != "\\" and self._shows(character)
            case _:
                return self._shows_text(character)
        return False

    def _shows_text(self, character: str) -> bool:
        self._state = {_ESCAPE: _State.ESCAPE, _CSI: _State.SEQUENCE}.get(character, _State.TEXT)
        if character in _STRINGS:
            self._begin_string()
        return not _OBEYED.match(character)

    def _begin_string(self) -> None:
        self._state, self._string = _State.STRING, 0


def _undisguised(word: re.Match[str]) -> str:
    """Of UTS 39 what needs no tables: a word of one script alone stays as it is, though it may look like another."""
    text = word[0]
    if text.isascii():
        return text
    scripts = [unicodedata.name(character, "").partition(" ")[0] for character in text]
    hidden = _LOOKALIKES if "LATIN" in scripts else frozenset()
    return "".join(
        _escape(character) if script in hidden or _is_other_form(character) else character
        for character, script in zip(text, scripts, strict=True)
    )


def _is_other_form(character: str) -> bool:
    plain = unicodedata.normalize("NFKC", character)
    return plain != character and plain.isascii() and plain.isalnum()


def _is_visible(character: str) -> bool:
    return character.isprintable() and not _IGNORABLE.match(character)


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _json_escape(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else json.dumps(character)[1:-1]
