"""The file of rules: what it may hold, how it says what is wrong with it, and which rule decides."""

import hashlib
import sys
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from recording.channel.watched import WrongFile
from service_kit.rules.facts import Facts
from service_kit.rules.file import MAX_FILE_BYTES, MAX_RULES, Rules, check_rules, load_policy
from service_kit.rules.policy import Policy
from tests.support.examples import examples

DENY = """
[[rules]]
name = "no-etc"
tools = ["read", "wr*"]
condition = 'args.path.startsWith("/etc")'
verdict = "deny"
reason = "Settings of the machine are not yours."
"""
ASK = """
[[rules]]
name = "ask-write"
tools = ["write"]
verdict = "ask"
"""
ALLOW = """
[[rules]]
name = "time"
tools = ["time.*"]
verdict = "allow"
"""
PIECES = (
    *("[[rules]]\n", 'name = "a"\n', 'name = "b"\n', 'verdict = "deny"\n', "condition = 'true'\n", 'tools = ["*"]\n'),
    *(
        "condition = 'args.x == 1'\n",
        "condition = 'args.'\n",
        "count = 1\n",
        "[rules]\n",
        "rules = 1\n",
        '"',
        "[",
        "\0",
    ),
    *(
        'reason = "r"\n',
        "tools = []\n",
        "verdict = 1\n",
        "condition = 1\n",
        "x = 1e400\n",
        "[[[rules]]]\n",
        "a.b.c = 1\n",
    ),
)


def load(text: str) -> Policy:
    return load_policy(Path("rules.toml"), [text.encode()])


def decided_by(policy: Policy, facts: Facts) -> str:
    """The name of the rule that decides."""
    found = policy.decide(facts)
    return found.rule if found else ""


def rule(**keys: str) -> str:
    return "[[rules]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


def test_the_first_rule_that_holds_decides_and_where_none_does_the_default_stands():
    policy = load(DENY + ASK + ALLOW)
    for tool, args, expected in (
        ("write", {"path": "/etc/passwd"}, ("deny", "no-etc", "Settings of the machine are not yours.")),
        ("write", {"path": "/srv/a"}, ("ask", "ask-write", "")),
        ("time.get_current_time", {}, ("allow", "time", "")),
        ("read", {"path": "/srv/a"}, None),
        ("bash", {"command": "cat /etc/passwd"}, None),
    ):
        found = policy.decide(Facts(tool, args))
        assert (found and (found.verdict, found.rule, found.reason)) == expected, tool
        assert found is None or found.policy_digest == policy.digest


def test_a_condition_that_cannot_be_evaluated_denies_and_names_its_rule():
    """Also where a later rule would have allowed the call; and a rule that is not reached is not evaluated."""
    found = load(DENY + rule(name='"rest"', verdict='"allow"')).decide(Facts("read", {}))
    assert found
    assert (found.verdict, found.rule) == ("deny", "no-etc")
    assert "no-etc could not be applied" in found.reason
    allowed = load(rule(name='"first"', condition="'tool == \"read\"'", verdict='"allow"') + DENY)
    assert decided_by(allowed, Facts("read", {})) == "first"


def test_arguments_that_are_too_large_to_be_judged_are_denied_by_the_rule_that_looks_at_them():
    policy = load(ALLOW.replace("time.*", "webfetch") + DENY + ASK)
    huge = {"path": "x" * 100_000, "content": "x"}
    assert decided_by(policy, Facts("write", huge)) == "no-etc"
    assert decided_by(policy, Facts("write", {"path": "a", "content": "x" * 100_000})) == "ask-write"
    assert decided_by(policy, Facts("webfetch", huge)) == "time"


def test_the_digest_is_what_sha256sum_prints():
    assert load(DENY).digest == hashlib.sha256(DENY.encode()).hexdigest()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must hold"),
        ("rules = []", "must hold"),
        ("rules = 1", "must hold"),
        ("[[rules]", "is not TOML"),
        (DENY + "[other]\n", "must hold"),
        ("count = 3\n" + DENY, "says that it has 3 rules, and has 1"),
        (DENY + DENY, "rule 2 ('no-etc', line 9): name: another rule has it already"),
        (DENY + rule(name='"b"'), "rule 2 ('b', line 8): verdict: is missing"),
        (rule(name='"b"', verdict='"maybe"'), "rule 1 ('b', line 1): verdict: "),
        (rule(name='"b c"', verdict='"deny"'), "name: a name has 1 to 64"),
        (rule(name='"b"', verdict='"deny"', tools="[]"), "tools: "),
        (rule(name='"b"', verdict='"deny"', tools='"bash"'), "tools: "),
        (rule(name='"b"', verdict='"deny"', when='"true"'), "when: there is no such key"),
        (rule(name='"b"', verdict='"deny"', reason=f'"{"é" * 129}"'), "reason: must be one line of at most 256 bytes"),
        (rule(name='"b"', verdict='"deny"', reason='"a\\nb"'), "reason: must be one line"),
        (rule(name='"b"', verdict='"deny"', condition="'nosuch == 1'"), "condition: undeclared reference to 'nosuch'"),
        (rule(name='"b"', verdict='"deny"', condition='""'), "condition: Syntax error"),
        ("rules = [1]", "rule 1: "),
        ("".join(rule(name=f'"r{n}"', verdict='"deny"') for n in range(MAX_RULES + 1)), "more than 100 rules"),
        ("#" * (MAX_FILE_BYTES + 1), "larger than 256 KiB"),
    ],
)
def test_a_wrong_file_is_refused_with_the_rule_and_the_line(text, told):
    with pytest.raises(WrongFile) as caught:
        check_rules(Path("rules.toml"), text.encode())
    assert told in str(caught.value)
    assert "rules.toml" in str(caught.value)


def test_a_changed_file_is_taken_and_a_wrong_one_keeps_the_old_and_says_so(tmp_path):
    path = tmp_path / "rules.toml"
    told: list[str] = []
    path.write_text(DENY, "utf-8")
    rules = Rules(path)
    rules.tell(told.append)

    def decides() -> str:
        found, digest = rules.decide(Facts("read", {"path": "/etc/passwd"}))
        assert found
        assert found.policy_digest == digest == told[-1]
        return found.rule

    assert (decides(), rules.trouble()) == ("no-etc", "")
    with structlog.testing.capture_logs() as logs:
        write(path, "[[rules]]\nname = 1\n")
        assert decides() == "no-etc"
        assert "rule 1" in rules.trouble()
        write(path, "")
        assert decides() == "no-etc"
        path.unlink()
        assert decides() == "no-etc"
        assert "cannot be read" in rules.trouble()
    assert [line["event"] for line in logs] == ["files.kept_as_before"] * 3
    assert "rule 1" in logs[0]["reason"]
    changed = DENY.replace("no-etc", "other")
    write(path, changed)
    assert (decides(), rules.trouble()) == ("other", "")
    assert told == [load(DENY).digest, load(changed).digest]


def write(path: Path, text: str) -> None:
    """As an editor does: another file under the name."""
    other = path.with_suffix(".new")
    other.write_text(text, "utf-8")
    other.replace(path)


@settings(max_examples=examples(60))
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join).map(str.encode) | st.binary(max_size=80))
def test_any_file_is_taken_or_refused_with_a_sentence(content):
    try:
        policy = load_policy(Path("rules.toml"), [content])
    except WrongFile:
        return
    assert policy.rules
    found = policy.decide(Facts("bash", {"x": 1}))
    assert found is None or found.rule in {rule.name for rule in policy.rules}


def test_an_installation_without_the_library_of_conditions_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "service_kit.rules.policy", None)
    with pytest.raises(WrongFile, match=r"the extra `rules`.*pip install -c constraints.txt -e '\.\[rules\]'"):
        load(DENY)


def test_a_file_that_is_cut_anywhere_is_never_taken_where_it_says_its_count():
    whole = ("count = 3\n" + DENY + ASK + ALLOW).encode()
    for length in range(0, len(whole) - len(b'verdict = "allow"\n'), 7):
        with pytest.raises(WrongFile):
            load_policy(Path("rules.toml"), [whole[:length]])
