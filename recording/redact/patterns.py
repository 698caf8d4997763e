"""Finds secrets by their shape, by the word before them, or by the program they go to: patterns.toml, compiled."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources

from recording.redact.randomness import random_after_word
from recording.redact.spans import Span, marker

_FRAGMENT = re.compile(r"@([a-z]+)@")
# Every token without keywords contains this; few commands do.
_RUN = re.compile(r"[A-Za-z0-9]{16}")
# In a short text, one pass for all keywords is faster; in a long one, a search for each keyword.
_SHORT_TEXT = 128
# A shorter match is harmless, and mostly a piece of code.
_SHORTEST = 4
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def _any_of(words: Iterable[str]) -> str:
    """A regular expression for any of the words, as a trie, which reads each character once."""
    rest: dict[str, list[str]] = {}
    for word in words:
        if not word:
            return ""
        rest.setdefault(word[0], []).append(word[1:])
    return f"(?:{'|'.join(re.escape(first) + _any_of(ends) for first, ends in rest.items())})"


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern of the file."""

    regex: str
    """With fragments substituted."""
    keywords: tuple[str, ...]
    example: str
    random: bool


class Table:
    """The patterns of one table, joined into one alternation."""

    def __init__(self, patterns: Mapping[str, Pattern], *, starts: str, lower: bool) -> None:
        """Compiles patterns for the text as it is or, if lower, in lower case; every match begins with starts.

        Lower-casing is much faster than ignoring case. The alternation is a lookahead that is tried at every position,
        so that matches may overlap. It finds where something begins; only there each pattern is tried by itself.
        """
        self.patterns = patterns
        self.starts = starts
        self.lower = lower
        alternatives = "|".join(pattern.regex for pattern in patterns.values())
        self._regex = re.compile(f"(?={starts})(?={alternatives})", re.ASCII)
        self.keywords = tuple({keyword: None for pattern in patterns.values() for keyword in pattern.keywords})
        self._any_keyword = re.compile(_any_of(self.keywords))
        self._by_run = not all(pattern.keywords for pattern in patterns.values())
        self._each = [
            (re.compile(pattern.regex, re.ASCII), marker(name), pattern.random) for name, pattern in patterns.items()
        ]

    def find(self, text: str, lower: str) -> list[Span]:
        """The spans that match in text; lower is its lower-case form of the same length."""
        if not (self._has_keyword(lower) or (self._by_run and _RUN.search(text))):
            return []
        form = lower if self.lower else text
        return [span for place in self._regex.finditer(form) for span in self._at(place.start(), form, text)]

    def _has_keyword(self, lower: str) -> bool:
        if len(lower) <= _SHORT_TEXT:
            return self._any_keyword.search(lower) is not None
        return any(keyword in lower for keyword in self.keywords)

    def _at(self, position: int, form: str, text: str) -> Iterator[Span]:
        for regex, mark, random in self._each:
            if match := regex.match(form, position):
                group = next((index for index, found in enumerate(match.groups(), 1) if found is not None), 0)
                start, end = match.span(group)
                secret = text[start:end]
                if len(secret) >= _SHORTEST and (not random or random_after_word(secret)):
                    yield Span(start, end, mark)


def _read() -> Iterator[Table]:
    tables = tomllib.loads(resources.files(__package__).joinpath("patterns.toml").read_text("utf-8"))
    fragments: dict[str, str] = {}

    def fill(regex: str) -> str:
        return _FRAGMENT.sub(lambda match: fragments[match[1]], regex)

    for name, regex in tables.pop("fragments").items():
        fragments[name] = fill(regex)
    for table in tables.values():
        starts, lower = table.pop("starts"), table.pop("lower")
        patterns = {
            name: Pattern(fill(e["regex"]), tuple(e.get("keywords", ())), e["example"], e.get("random", False))
            for name, e in table.items()
        }
        yield Table(patterns, starts=starts, lower=lower)


TABLES = tuple(_read())
_ANY_KEYWORD = re.compile(_any_of(keyword for table in TABLES for keyword in table.keywords))


def find(text: str, tables: Iterable[Table] = TABLES) -> list[Span]:
    """The spans of secrets that match a pattern."""
    lower = text.lower()
    if len(text) <= _SHORT_TEXT and not _ANY_KEYWORD.search(lower) and not _RUN.search(text):
        return []
    if len(lower) != len(text):  # one letter of Unicode becomes two in lower case
        lower = text.translate(_ASCII_LOWER)
    return [span for table in tables for span in table.find(text, lower)]
