"""What conditions are taken, what they read, and that whatever could run away is refused before it runs."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service_kit.rules.conditions import MAX_CONDITION_CHARACTERS, Condition, FirstOf, WrongCondition, compile_condition
from service_kit.rules.facts import MAX_TEXT_BYTES, MAX_VALUES, Facts, Unevaluable
from service_kit.rules.patterns import MAX_PATTERN_COST, pattern_cost
from tests.support.examples import examples

WORDS = (
    *("args", ".x", ".y", '["x"]', "tool", "labels.team", "principal", "true", "1", "1.5", '"a"', "[1, 2]", '{"a": 1}'),
    *(" && ", " || ", "!", " == ", " < ", " + ", " in ", " ? ", " : ", "(", ")", "-", "// c\n", "\n", "\\", '"', "'''"),
    *(".all(x, ", ".exists(y, ", ".map(z, ", ".matches(", ".contains(", ".size()", "has(", "string(", 'r"\\pL{9}"'),
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Syntax error"),
        ('"a', "Syntax error"),
        ("nosuch == 1", "undeclared reference to 'nosuch' (line 1, column 1 of the condition)"),
        ('true &&\n  args.x.nosuch("a")', "undeclared reference to 'nosuch' (line 2, column 16 of the condition)"),
        ("tool == 1", "no matching overload"),
        ("args.force", "must be true or false"),
        ("1", "must be true or false"),
        ("(" * 40 + "true" + ")" * 40, "too deep"),
        (" " * MAX_CONDITION_CHARACTERS + "true", "longer than"),
        ("\ud800", "not CEL"),
        ("args.a.all(x, args.b.all(y, x == y))", "cannot stand within one another"),
        ("[1, 2].all(x, [[3]].exists(y, y.exists(z, z == x)))", "cannot stand within one another"),
        ("args.a.map(x, [x, x]) == []", "make lists"),
        ("args.a.filter(x, x == 1).size() > 1", "make lists"),
        ("args.a.exists(x, string(x) == 'a')", "string cannot be used within"),
        ("args.a.exists(x, args.b.matches('(ab)+'))", "must search the element"),
        ("args.a.exists(x, args.b.contains(x))", "must search the element"),
        ("args.a.exists(x, " + " || ".join(f"x == {n}" for n in range(11)) + ")", "more than 10 comparisons"),
        ('principal + "@example.org" == args.mail', "larger"),
        ("args.a + args.b == args.c", "larger"),
        ("args.a.matches(args.pattern)", "must be written out"),
        ('args.a.matches("(")', "not a regular expression"),
        (r'args.a.matches(r"(\pL{30}){30}")', "repeat less"),
        (r'args.a.matches(r"(.{1,999}x)(.{1,999}x)")', "repeat less"),
        (r'args.a.matches(r"\Q(\E.{900}")', "is not taken"),
    ],
)
def test_what_cannot_be_meant_or_could_run_away_is_refused_when_it_is_loaded(text, told):
    with pytest.raises(WrongCondition) as caught:
        compile_condition(text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("true", set()),
        ('args.path.startsWith("/etc") || args["mode"] == 1', {"path", "mode"}),
        ('has(args.path) && "mode" in args', {"path", "mode"}),
        (".args.path == 'a'", {"path"}),
        ('args.list.exists_one(x, x.name.matches("^a{3}$"))', {"list"}),
        ("[1].exists(args, args == 1)", None),
        ("args[tool] == 1", None),
        ("size(args) > 3", None),
        ("args.exists(name, name == 'x')", None),
        ("args == {'a': 1}", None),
        ("args.n + 1 > 2 && args.m + 1.5 < 3.0", {"n", "m"}),
    ],
)
def test_what_a_condition_reads_of_the_arguments_is_known(text, reads):
    assert compile_condition(text).reads.arguments == (None if reads is None else frozenset(reads))


def test_a_condition_sees_all_that_is_known_of_a_call():
    facts = Facts(
        "bash",
        {"command": "ls", "n": 5, "list": ["a", {"b": None}], "f": 1.5, "t": True},
        "ada",
        {"team": "web"},
        {"name": "coder", "version": "2"},
        "ollama",
        "qwen3",
        "0190",
    )
    for text in (
        'tool == "bash" && principal == "ada" && labels.team == "web" && session == "0190"',
        'agent.name == "coder" && agent.version == "2" && engine == "ollama" && model.startsWith("qwen")',
        'args.command == "ls" && args.n == 5 && args.f > 1.0 && args.t && args.list[1].b == null',
        'has(args.n) && !has(args.m) && !has(labels.x) && args.list.exists(x, x == "a")',
    ):
        assert compile_condition(text).holds(facts), text


@pytest.mark.parametrize(
    ("text", "args", "told"),
    [
        ("args.x == 1", {}, "has()"),
        ("labels.team == 'web'", {}, "has()"),
        ("args.x.startsWith('a')", {"x": 1}, "does not fit"),
        ("args.x < 1", {"x": "a"}, "does not fit"),
        ("args.x == 1", {"x": 2**70}, "does not fit"),
        ("args.x == 'a'", {"x": "\ud800"}, "does not fit"),
        ("1 / args.x == 1", {"x": 0}, "does not fit"),
        ("int(args.x) == 1", {"x": "secret"}, "does not fit"),
        ("args.x == 'a'", {"x": "é" * (MAX_TEXT_BYTES // 2 + 1)}, "more than 64 KiB"),
        ("size(args.x) == 1", {"x": [[1]] * (MAX_VALUES // 2)}, "more than"),
        ("size(args.x) == 1", {"x": {str(n): 1 for n in range(MAX_VALUES)}}, "more than"),
        ("args.x == 1", None, "does not fit"),
    ],
)
def test_what_cannot_be_evaluated_says_so_and_quotes_no_value(text, args, told):
    with pytest.raises(Unevaluable) as caught:
        compile_condition(text).holds(Facts("t", args))
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_a_condition_does_not_read_may_be_of_any_size():
    args = {"path": "/etc", "content": "x" * 10 * MAX_TEXT_BYTES, "other": [1] * 10 * MAX_VALUES, "big": 2**70}
    assert compile_condition('args.path == "/etc"').holds(Facts("write", args))


def test_many_conditions_in_one_program_find_the_same_as_one_by_one():
    conditions = [compile_condition(f"args.n == {n} // a comment") for n in range(100)]
    first = FirstOf(conditions)
    for n in (0, 1, 57, 99, 100):
        assert first.find(Facts("t", {"n": n})) == n
    assert first.find(Facts("t", {})) is None


@pytest.mark.parametrize(
    ("pattern", "cost"),
    [
        ("", 0),
        ("rm -rf", 6),
        ("^[0-9a-f]{64}$", 642),
        (r"\d{1,3}(\.\d{1,3}){3}", 30 + 3 * (1 + 30)),
        (r"(a{2}[\]{]{3}){4}", 4 * (2 + 30)),
        ("(a{30}){30}", 900),
        (r"\pL{9}\p{Greek}", 100),
        ("a{x}", 4),
        ("[]{9}]", 10),
        ("a{2,}b{0}", 2),
    ],
)
def test_the_cost_of_a_pattern_counts_what_repetition_makes_of_it(pattern, cost):
    assert pattern_cost(pattern) == cost
    assert cost <= MAX_PATTERN_COST


VALUES = st.sampled_from(
    (
        *(
            "args.x",
            "args.y",
            'args["z"]',
            "args.y[0]",
            "args.y.b",
            "args[tool]",
            "args",
            "labels",
            "labels.team",
            "tool",
        ),
        *("1", "1.5", "'a'", "null", "true", "[1, 'a', [2]]", "{'a': args.x}", "b'a'", "size(args.y)", "int(args.x)"),
        *("string(args.z)", "args.x + 1", "-args.x", "args.x % 2", "type(args.z)", "timestamp(args.x)", "dyn(args.x)"),
    )
)
LOOPS = st.sampled_from(("args.y.{}(e, {})", "[1, 'a'].{}(e, {})", "args.{}(e, {})", "args.z.{}(e, {})"))
TESTS = st.one_of(
    st.tuples(VALUES, st.sampled_from(("==", "!=", "<", ">=", "in")), VALUES).map(" ".join),
    st.tuples(VALUES, st.sampled_from(("contains", "endsWith", "matches"))).map("{0[0]}.{0[1]}('a')".format),
    st.tuples(LOOPS, st.sampled_from(("all", "exists", "exists_one")), st.sampled_from(("e == 1", "e > args.x"))).map(
        lambda parts: parts[0].format(*parts[1:])
    ),
    st.sampled_from(("has(args.x)", "has(args.y.b)", "'x' in args", "true")),
)
CONDITIONS = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(("&&", "||")), inner).map("({0[0]} {0[1]} {0[2]})".format),
        st.tuples(inner, inner, inner).map("({0[0]} ? {0[1]} : {0[2]})".format),
        inner.map("!({})".format),
    ),
    max_leaves=5,
)
ARGUMENTS = st.recursive(
    st.sampled_from((None, True, 0, 1, 2**63, -1.5, 1e308, "", "a", "é", "2020-01-01T00:00:00Z")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("a", "b", "x")), inner, max_size=3),
    max_leaves=5,
)


def found_one_by_one(conditions: list[Condition], facts: Facts) -> int | None:
    """The place of the first that holds, their number where none does; None where one that is asked cannot say."""
    try:
        return next((place for place, one in enumerate(conditions) if one.holds(facts)), len(conditions))
    except Unevaluable:
        return None


@pytest.mark.long
@settings(max_examples=examples(300))
@given(st.lists(CONDITIONS, min_size=1, max_size=4), st.dictionaries(st.sampled_from("xyz"), ARGUMENTS, max_size=3))
def test_together_conditions_find_what_they_find_one_by_one_for_any_arguments(texts, args):
    conditions = []
    for text in texts:
        with suppress(WrongCondition):
            conditions.append(compile_condition(text))
    if conditions:
        facts = Facts("x", args, labels={"team": "web"})
        assert FirstOf(conditions).find(facts) == found_one_by_one(conditions, facts)


@settings(max_examples=examples(60))
@given(st.lists(st.sampled_from(WORDS), max_size=25).map("".join) | st.text(max_size=60))
def test_any_text_is_taken_or_refused_and_what_is_taken_says_yes_no_or_why_not(text):
    try:
        condition = compile_condition(text)
    except WrongCondition:
        return
    every: list[dict[str, Any]] = [{}, {"x": "a", "y": [1, "a", {"b": 2}]}]
    for args in every:
        with suppress(Unevaluable):
            assert condition.holds(Facts("t", args)) in (True, False)
