"""Whatever stands around a secret, and wherever a text is cut, no piece of it is shown."""

import json
import random
from collections.abc import Iterator

import pytest
from hypothesis import example as also
from hypothesis import given, settings
from hypothesis import strategies as st

from recording import redact
from recording.redact.patterns import TABLES
from recording.redact.summary import MAX_BYTES
from tests.recording.redact.samples import fill, pieces_of
from tests.support.examples import examples

ANY_TEXT = st.text(max_size=200)
# fmt: off - one piece a line would hide that this is a list of oddities
HOSTILE_PIECES = (
    "'",
    '"',
    "\\",
    "$(",
    ")",
    "`",
    "\n",
    " ",
    "<<E",
    "=",
    ":",
    ";",
    "|",
    "a",
    "é",
    "İ",
    "%41",
    "\\u0041",
    "[redacted:jwt]",
    "password=",
    "--token ",
    "ghp_",
    "xoxb-",
    "eyJ",
    "sk-",
    "-p",
    "://",
    "@",
    "?a=",
    "&b=",
    "#",
    "[redacted:",
    "curl -u ",
)
# fmt: on
HOSTILE_TEXT = st.lists(st.sampled_from(HOSTILE_PIECES), max_size=30).map("".join)
AROUND = st.one_of(ANY_TEXT, HOSTILE_TEXT)
LIMIT = st.integers(min_value=0, max_value=3_000)
MANY = settings(max_examples=examples(150), deadline=None)
SEED = st.integers(min_value=0, max_value=2**32)
PATTERNS = {name: pattern.example for table in TABLES for name, pattern in table.patterns.items()}
COMMANDS = {"mysql-password", "sshpass", "unzip", *TABLES[2].patterns, *TABLES[3].patterns, *TABLES[4].patterns}
SAID = [example for name, example in PATTERNS.items() if name in COMMANDS]
SHAPED = [example for name, example in PATTERNS.items() if name not in COMMANDS]
TOOLS = {"bash": "command", "grep": "pattern", "other": "x", "read": "path", "webfetch": "url", "write": "content"}


def _shown_everywhere(text: str, limit: int) -> Iterator[str]:
    yield redact.redact_text(text, limit)
    yield redact.redact_name(text, limit)
    for tool, argument in TOOLS.items():
        yield redact.summarize_args(tool, json.dumps({argument: text}))
        yield redact.summarize_args(tool, json.dumps({argument: text}, ensure_ascii=False))


@pytest.mark.long
@MANY
@given(example=st.sampled_from(SHAPED), seed=SEED, before=AROUND, after=AROUND, limit=LIMIT)
def test_a_secret_that_is_told_by_its_shape_is_not_shown_whatever_touches_it(example, seed, before, after, limit):
    text, secrets = fill(example, random.Random(seed))
    for shown in _shown_everywhere(before + text + after, limit):
        assert not any(pieces_of(secret, shown) for secret in secrets)


@pytest.mark.long
@MANY
@given(example=st.sampled_from(SAID), seed=SEED, before=AROUND, after=AROUND, limit=LIMIT)
# The word that tells is in a quote, which is dropped.
@also(example=PATTERNS["mnemonic"], seed=0, before='"', after="", limit=0)
@also(example=PATTERNS["mnemonic"], seed=0, before='"', after='"', limit=0)
def test_a_secret_that_is_told_by_words_is_not_shown_whatever_else_is_said(example, seed, before, after, limit):
    text, secrets = fill(example, random.Random(seed))
    for shown in _shown_everywhere(f"{before}\n{text}\n{after}", limit):
        assert not any(pieces_of(secret, shown) for secret in secrets)


@pytest.mark.long
@MANY
@given(
    example=st.sampled_from(SHAPED), seed=SEED, fill_up=st.integers(0, 200), border=st.sampled_from([512, 1_024, 4_096])
)
def test_a_secret_on_the_border_of_what_is_looked_at_or_shown_is_not_shown_in_part(example, seed, fill_up, border):
    text, secrets = fill(example, random.Random(seed))
    for shown in _shown_everywhere("x " * ((border - fill_up) // 2) + text + " x" * 3_000, 2_048):
        assert not any(pieces_of(secret, shown) for secret in secrets)


@pytest.mark.long
@MANY
@given(
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=8, max_size=60),
    before=AROUND,
    after=AROUND,
    limit=LIMIT,
)
def test_a_secret_of_this_process_is_not_shown_whatever_touches_it(secret, before, after, limit):
    around = before + after + " [redacted:own-secret]"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recording.redact.exact._forms", ())
        redact.protect([secret])
        for shown in _shown_everywhere(before + secret + after, limit):
            assert not [piece for piece in pieces_of(secret, shown) if piece not in around]


@pytest.mark.long
@MANY
@given(text=AROUND, limit=LIMIT)
def test_what_is_shown_fits_and_can_be_written(text, limit):
    error = redact.redact_text(text, limit)
    assert len(error.encode()) <= limit
    assert "\x00" not in error
    assert len(redact.redact_name(text, limit)) <= limit
    redact.redact_name(text, limit).encode()


@MANY
@given(tool=AROUND, arguments=st.one_of(AROUND, st.text(max_size=6_000)))
def test_arguments_of_any_text_have_a_summary_that_fits(tool, arguments):
    summary = redact.summarize_args(tool, arguments)
    assert len(summary.encode()) <= MAX_BYTES
    json.loads(summary)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | AROUND | st.text(max_size=5_000),
    lambda children: st.lists(children, max_size=5) | st.dictionaries(st.text(max_size=50), children, max_size=30),
    max_leaves=20,
)
NAMES = st.sampled_from(["command", "path", "url", "pattern", "glob", "offset", "timeout_seconds", "content", "k" * 40])


@pytest.mark.long
@MANY
@given(
    tool=st.sampled_from(["bash", "edit", "glob", "grep", "read", "webfetch", "write", "other"]),
    arguments=st.dictionaries(NAMES | st.text(max_size=60), JSON, max_size=30),
)
def test_arguments_of_any_value_have_a_summary_that_fits(tool, arguments):
    summary = redact.summarize_args(tool, json.dumps(arguments))
    assert len(summary.encode()) <= MAX_BYTES
    assert isinstance(json.loads(summary), dict)
