"""Secrets told by their shape, by the word before them, or by the program they go to: patterns.toml, compiled."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources

from recording.redact.randomness import random_after_word
from recording.redact.spans import Span, marker

_FRAGMENT = re.compile(r"@([a-z]+)@")
# What a token without keywords contains, and few commands do.
_RUN = re.compile(r"[A-Za-z0-9]{16}")
# Shorter, it says nothing and is mostly a piece of code.
_SHORTEST = 4
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern of the file."""

    regex: str
    """With its fragments filled in."""
    keywords: tuple[str, ...]
    example: str
    random: bool


class Table:
    """Patterns of one table as one alternation."""

    def __init__(self, patterns: Mapping[str, Pattern], *, starts: str, lower: bool) -> None:
        """Compiles patterns, to be matched against the text in lower case or as it is; starts is how any match begins.

        Lower case is much faster than ignoring case. Each pattern is looked for at every position, within a lookahead,
        so that what one of them takes is not lost for another. The alternation says where something begins, and only
        there the patterns are asked one by one.
        """
        self.patterns = patterns
        self.starts = starts
        self.lower = lower
        alternatives = "|".join(pattern.regex for pattern in patterns.values())
        self._regex = re.compile(f"(?={starts})(?={alternatives})", re.ASCII)
        self.keywords = tuple({keyword: None for pattern in patterns.values() for keyword in pattern.keywords})
        self._by_run = not all(pattern.keywords for pattern in patterns.values())
        self._each = [
            (re.compile(pattern.regex, re.ASCII), marker(name), pattern.random) for name, pattern in patterns.items()
        ]

    def find(self, text: str, lower: str) -> list[Span]:
        """What matches in text, whose lower-case form of the same length is given with it."""
        for keyword in self.keywords:
            if keyword in lower:
                break
        else:
            if not self._by_run or not _RUN.search(text):
                return []
        form = lower if self.lower else text
        return [span for place in self._regex.finditer(form) for span in self._at(place.start(), form, text)]

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


def _any_of(words: Iterable[str]) -> str:
    """A regular expression for any of the words that reads each character once."""
    rest: dict[str, list[str]] = {}
    for word in words:
        if not word:
            return ""
        rest.setdefault(word[0], []).append(word[1:])
    return f"(?:{'|'.join(re.escape(first) + _any_of(ends) for first, ends in rest.items())})"


TABLES = tuple(_read())
_ANY_KEYWORD = re.compile(_any_of(keyword for table in TABLES for keyword in table.keywords))
# One pass for all keywords is quicker in a short text, and looking for each of them in a long one.
_SHORT_TEXT = 128


def find(text: str, tables: Iterable[Table] = TABLES) -> list[Span]:
    """Spans of secrets that a pattern knows."""
    lower = text.lower()
    if len(text) <= _SHORT_TEXT and not _ANY_KEYWORD.search(lower) and not _RUN.search(text):
        return []
    if len(lower) != len(text):  # one letter of Unicode becomes two in lower case
        lower = text.translate(_ASCII_LOWER)
    return [span for table in tables for span in table.find(text, lower)]
