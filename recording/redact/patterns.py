"""Finds secrets by their shape, by the word before them, or by the program they go to: those of patterns.toml."""

import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from recording.lazy import lazy
from recording.redact.randomness import random_after_word
from recording.redact.shape import is_mixed
from recording.redact.spans import Span, marker

_FRAGMENT = re.compile(r"@([a-z]+)@")
# Every token without keywords contains this; few commands do.
_RUN = re.compile(r"[A-Za-z0-9]{16}")
# In a short text, a look at its trigrams leaves few keywords; in a long one, a search for each keyword is faster.
_SHORT_TEXT = 512
# A shorter match is harmless, and mostly a piece of code.
_SHORTEST = 4
# So many patterns are faster one by one than as a part of the alternation of all.
_FEW = 3
_LONG = 256
_OPENED = re.compile(r"(?:^|[\s=,(])(['\"])[\w.-]+[=:]\Z")
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
    begins: tuple[str, ...] = ()
    """Words of which one stands where a match begins, if they are known."""


class Table:
    """The patterns of one table."""

    def __init__(self, patterns: Mapping[str, Pattern], *, starts: str, lower: bool, together: bool = True) -> None:
        """Patterns for the text as it is or, if lower, in lower case; every match begins with starts.

        Lower-casing is much faster than ignoring case. Each pattern is tried at every position, so that matches may
        overlap, or only where a word stands with which it begins. Where many patterns without such words may match,
        their alternation finds where something begins; only there the patterns themselves are tried.
        """
        self.patterns = patterns
        self.starts = starts
        self.lower = lower
        self._together = together
        self._begin = f"(?={starts})" if starts else ""
        self._begun = {index for index, pattern in enumerate(patterns.values()) if pattern.begins}
        self._each = [_Each(name, pattern, self._begin) for name, pattern in patterns.items()]

    @lazy
    def _all(self) -> re.Pattern[str]:
        others = [pattern.regex for pattern in self.patterns.values() if not pattern.begins]
        return re.compile(f"{self._begin}(?:{'|'.join(others)})", re.ASCII)

    def find(self, text: str, lower: str, wanted: Collection[int]) -> Iterator[Span]:
        """The spans that the wanted patterns, by their places, match; lower is the lower-case text, as long as text."""
        form = lower if self.lower else text
        together = []
        for index in wanted:
            if not self._together or index in self._begun or len(wanted) <= _FEW:
                yield from _everywhere(self._each[index].somewhere, [self._each[index]], form, text)
            else:
                together.append(self._each[index])
        if together:
            yield from _everywhere(self._all, together, form, text)


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
        self._short = [keyword for keyword in of_keyword if len(keyword) < 3]
        self._any_short = re.compile("|".join(map(re.escape, self._short)) or r"(?!)")
        self._of_trigram: dict[tuple[str, ...], list[str]] = {}
        for keyword in of_keyword:
            if len(keyword) >= 3:
                self._of_trigram.setdefault(tuple(keyword[:3]), []).append(keyword)
        self._trigrams = frozenset(self._of_trigram)

    def wanted(self, text: str, lower: str) -> set[tuple[int, int]]:
        """The patterns: the places of their tables, and theirs in them."""
        found: set[tuple[int, int]] = set()
        if self._by_run and _RUN.search(text):
            found |= self._by_run
        keywords: Iterable[str] = self._of_keyword
        if len(lower) <= _SHORT_TEXT:
            for trigram in self._trigrams.intersection(zip(lower, lower[1:], lower[2:])):  # noqa: B905 - a keyword costs time
                for keyword in self._of_trigram[trigram]:
                    if keyword in lower:
                        found |= self._of_keyword[keyword]
            keywords = self._short if self._any_short.search(lower) else ()
        for keyword in keywords:
            if keyword in lower:
                found |= self._of_keyword[keyword]
        return found


class _Each:
    """A pattern, compiled when a text first asks for it: to compile all takes a process 0.3 s of its start."""

    def __init__(self, name: str, pattern: Pattern, begin: str) -> None:
        self._pattern = pattern
        self._begin = begin
        self.mark = marker(name)
        self.check = _check(pattern)
        """What its secret must look like."""

    @lazy
    def somewhere(self) -> re.Pattern[str]:
        begins, regex = self._pattern.begins, self._pattern.regex
        return re.compile(_any_of(begins) if begins else f"{self._begin}(?:{regex})", re.ASCII)

    @lazy
    def here(self) -> re.Pattern[str]:
        return re.compile(self._pattern.regex, re.ASCII)


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
        start, end = match.span(match.lastindex or 0)
        if (opened := _OPENED.search(text, max(0, start - 60), start)) and opened[1] not in text[start:end]:
            # 'name=a;b': the value goes on to the quote that opened before its name
            end = max(end, text.find(opened[1], end, start + _LONG))
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
    lists: dict[str, list[str]] = tables.pop("words")

    def fill(regex: str) -> str:
        return _FRAGMENT.sub(lambda match: fragments[match[1]], regex)

    def words(given: Iterable[str]) -> tuple[str, ...]:
        return tuple(
            word for each in given for word in (words(lists[each[1:-1]]) if _FRAGMENT.fullmatch(each) else [each])
        )

    for name, regex in tables.pop("fragments").items():
        fragments[name] = fill(regex)
    for table in tables.values():
        starts, lower, together = table.pop("starts"), table.pop("lower"), table.pop("together")
        patterns = {
            name: Pattern(
                fill(e["regex"]),
                words(e.get("keywords", e.get("begins", ()))),
                e["example"],
                random=e.get("random", False),
                mixed=e.get("mixed", False),
                begins=words(e.get("begins", ())),
            )
            for name, e in table.items()
        }
        yield Table(patterns, starts=starts, lower=lower, together=together)


TABLES = tuple(_read())
_KEYWORDS = Keywords(TABLES)


def find(text: str, keywords: Keywords = _KEYWORDS) -> list[Span]:
    """The spans of secrets that match a pattern."""
    lower = text.lower()
    if len(lower) != len(text):  # one letter of Unicode becomes two in lower case
        lower = text.translate(_ASCII_LOWER)
    found = keywords.wanted(text, lower)
    if not found:
        return []
    wanted: dict[int, list[int]] = {}
    for number, index in sorted(found):
        wanted.setdefault(number, []).append(index)
    return [span for number, places in wanted.items() for span in keywords.tables[number].find(text, lower, places)]
