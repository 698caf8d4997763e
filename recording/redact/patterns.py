"""Finds secrets by their shape, by the word before them, or by the program they go to: patterns.toml, compiled."""

import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from recording.redact.randomness import random_after_word
from recording.redact.shape import is_mixed
from recording.redact.spans import Span, marker

_FRAGMENT = re.compile(r"@([a-z]+)@")
# Every token without keywords contains this; few commands do.
_RUN = re.compile(r"[A-Za-z0-9]{16}")
# In a short text, one pass for all keywords is faster; in a long one, a search for each keyword.
_SHORT_TEXT = 128
# A shorter match is harmless, and mostly a piece of code.
_SHORTEST = 4
# So many patterns are faster one by one than as a part of the alternation of all.
_FEW = 3
_LONG = 256
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
    mixed: bool


class Table:
    """The patterns of one table."""

    def __init__(self, patterns: Mapping[str, Pattern], *, starts: str, lower: bool) -> None:
        """Compiles patterns for the text as it is or, if lower, in lower case; every match begins with starts.

        Lower-casing is much faster than ignoring case. Each pattern is tried at every position, so that matches may
        overlap. It finds where something begins; only there the pattern itself is tried. Where many
        patterns may match, their alternation is tried in their place.
        """
        self.patterns = patterns
        self.starts = starts
        self.lower = lower
        begin = f"(?={starts})" if starts else ""
        self._all = re.compile(f"{begin}(?:{'|'.join(pattern.regex for pattern in patterns.values())})", re.ASCII)
        self._each = [
            _Each(
                re.compile(f"{begin}(?:{pattern.regex})", re.ASCII),
                re.compile(pattern.regex, re.ASCII),
                marker(name),
                _check(pattern),
            )
            for name, pattern in patterns.items()
        ]

    def find(self, text: str, lower: str, wanted: Collection[int]) -> Iterator[Span]:
        """The spans that the wanted patterns, by their places, match; lower is the lower-case text, as long as text."""
        form = lower if self.lower else text
        if len(wanted) <= _FEW:
            for index in wanted:
                yield from _everywhere(self._each[index].somewhere, [self._each[index]], form, text)
        else:
            yield from _everywhere(self._all, [self._each[index] for index in wanted], form, text)


class Keywords:
    """Which patterns of some tables may match a text: those of which a keyword stands in it."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables = tables
        of_keyword: dict[str, set[tuple[int, int]]] = {}
        by_run = set()
        for number, table in enumerate(tables):
            for index, pattern in enumerate(table.patterns.values()):
                for keyword in pattern.keywords:
                    of_keyword.setdefault(keyword, set()).add((number, index))
                if not pattern.keywords:
                    by_run.add((number, index))
        self._of_keyword = of_keyword
        self._by_run = by_run
        self._any = re.compile(_any_of(of_keyword)) if of_keyword else None
        # The shortest keyword that begins at each position; it stands for the longer ones as well.
        self._each = re.compile(f"(?=({_any_of(of_keyword)}))")
        self._longer = {
            short: [keyword for keyword in of_keyword if keyword != short and keyword.startswith(short)]
            for short in of_keyword
        }

    def wanted(self, text: str, lower: str) -> Mapping[int, list[int]]:
        """The places of the patterns in their tables, by the table's."""
        places = set(self._by_run) if self._by_run and _RUN.search(text) else set()
        if len(lower) <= _SHORT_TEXT:
            if self._any is not None and self._any.search(lower):
                for keyword in set(self._each.findall(lower)):
                    places |= self._of_keyword[keyword]
                    for longer in self._longer[keyword]:
                        if longer in lower:
                            places |= self._of_keyword[longer]
        else:
            for keyword, of_keyword in self._of_keyword.items():
                if keyword in lower:
                    places |= of_keyword
        found: dict[int, list[int]] = {}
        for number, index in sorted(places):
            found.setdefault(number, []).append(index)
        return found


@dataclass(frozen=True, slots=True)
class _Each:
    """A pattern, compiled."""

    somewhere: re.Pattern[str]
    here: re.Pattern[str]
    mark: str
    check: Callable[[str], bool] | None
    """What its secret must look like."""


def _everywhere(regex: re.Pattern[str], patterns: Iterable[_Each], form: str, text: str) -> Iterator[Span]:
    """What the patterns redact at each position where regex matches.

    Within a long secret that was found, only its end is searched. Else `key=key=key=…` would take quadratic time.
    """
    position = skip_from = skip_to = 0
    while match := regex.search(form, position):
        position = match.start() + 1
        if skip_from < position <= skip_to:
            position = skip_to
            continue
        for each in patterns:
            for span in _secret(each, match.start(), form, text):
                yield span
                if span.end - span.start > _LONG:
                    skip_from, skip_to = span.start, span.end - _LONG


def _secret(each: _Each, position: int, form: str, text: str) -> Iterator[Span]:
    """What a pattern redacts at a position, if it matches there."""
    if match := each.here.match(form, position):
        group = next((index for index, found in enumerate(match.groups(), 1) if found is not None), 0)
        start, end = match.span(group)
        secret = text[start:end]
        if len(secret) >= _SHORTEST and (each.check is None or each.check(secret[:_LONG])):
            yield Span(start, end, each.mark)


def _check(pattern: Pattern) -> Callable[[str], bool] | None:
    """What a match's secret must look like, if anything."""
    if pattern.random:
        return random_after_word
    return is_mixed if pattern.mixed else None


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
            name: Pattern(
                fill(e["regex"]),
                tuple(e.get("keywords", ())),
                e["example"],
                random=e.get("random", False),
                mixed=e.get("mixed", False),
            )
            for name, e in table.items()
        }
        yield Table(patterns, starts=starts, lower=lower)


TABLES = tuple(_read())
_KEYWORDS = Keywords(TABLES)


def find(text: str, keywords: Keywords = _KEYWORDS) -> list[Span]:
    """The spans of secrets that match a pattern."""
    lower = text.lower()
    if len(lower) != len(text):  # one letter of Unicode becomes two in lower case
        lower = text.translate(_ASCII_LOWER)
    return [
        span
        for number, wanted in keywords.wanted(text, lower).items()
        for span in keywords.tables[number].find(text, lower, wanted)
    ]
