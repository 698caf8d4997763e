"""The file of patterns: each finds what it is for, and none is there for nothing."""

import random

import pytest

from recording.redact import patterns
from recording.redact.patterns import TABLES, Keywords, Pattern, Table
from recording.redact.spans import replace
from tests.recording.redact.samples import fill, pieces_of

PATTERNS = [pytest.param(table, name, id=name) for table in TABLES for name in table.patterns]


def _example(pattern: Pattern) -> tuple[str, tuple[str, ...]]:
    return fill(pattern.example, random.Random(7))


@pytest.mark.parametrize(("table", "name"), PATTERNS)
def test_a_pattern_alone_finds_its_example_and_names_it(table, name):
    pattern = table.patterns[name]
    text, secrets = _example(pattern)
    alone = Table({name: pattern}, starts=table.starts, lower=table.lower)
    shown = replace(text, patterns.find(text, Keywords([alone])))
    assert f"[redacted:{name}]" in shown
    assert secrets
    assert not any(pieces_of(secret, shown) for secret in secrets)


@pytest.mark.long
@pytest.mark.parametrize(("table", "name"), PATTERNS)
def test_without_a_pattern_its_example_would_be_shown(table, name):
    text, secrets = _example(table.patterns[name])
    others = {other: pattern for other, pattern in table.patterns.items() if other != name}
    without = [Table(others, starts=table.starts, lower=table.lower), *(rest for rest in TABLES if rest is not table)]
    shown = replace(text, patterns.find(text, Keywords(without)))
    assert any(pieces_of(secret, shown) for secret in secrets)


def test_a_secret_that_begins_within_another_is_found():
    """Whoever writes two without space between must not get the second one through."""
    second = "ghp_" + "a1" * 18
    for first in ("sk_live_" + "b2" * 8, "glsa_" + "b2" * 16 + "+", "eyJ" + "b2" * 9):
        assert not pieces_of(second, replace(first + second, patterns.find(first + second)))


def test_a_letter_that_lower_case_makes_longer_shifts_nothing():
    text = "İ" * 20 + " password=a1b2c3d4e5 İ"
    assert replace(text, patterns.find(text)) == "İ" * 20 + " password=[redacted:password] İ"


def test_names_of_patterns_are_used_once_and_fit_the_marker():
    names = [name for table in TABLES for name in table.patterns]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and name.replace("-", "").isalpha() for name in names)
