"""What of a call's arguments is shown: fields on a list; of all others, names, types and sizes."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording.redact import summarize_args
from recording.redact.fit import cut
from tests.recording.redact.samples import pieces_of

CANARY = "canary-5d41c2"


def summary(tool: str, **arguments: object) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(summarize_args(tool, json.dumps(arguments)))
    return shown


def test_a_read_shows_its_path_and_range():
    assert summary("read", path="src/a.py", offset=10, limit=20) == {"path": "src/a.py", "offset": 10, "limit": 20}


def test_a_bash_shows_its_command():
    assert summary("bash", command="ls -la", timeout_seconds=1.5) == {"command": "ls -la", "timeout_seconds": 1.5}


def test_a_webfetch_shows_its_url_without_values():
    shown = summary("webfetch", url="https://me:pw@example.com/a?q=x&b=y#z", max_characters=100)
    assert shown == {"url": "https://*@example.com/a?q=*&b=*#*", "max_characters": 100}


def test_claude_s_own_tools_are_shown_as_ours_are():
    assert summary("Bash", command="echo a > f", description=CANARY) == {
        "command": "echo [data: 1 bytes] > f",
        "description": {"type": "string", "bytes": len(CANARY)},
    }
    assert summary("Read", file_path="/src/a.py", limit=5) == {"file_path": "/src/a.py", "limit": 5}
    shown = summary("Edit", file_path="f", old_string=CANARY, new_string=CANARY)
    assert CANARY not in str(shown | summary("Write", file_path="f", content=CANARY))
    assert summary("WebFetch", url="https://a.example/?q=1", prompt=CANARY)["url"] == "https://a.example/?q=*"


def test_a_search_shows_what_it_looks_for():
    shown = summary("grep", pattern="def \\w+", path="src", glob="*.py", ignore_case=True)
    assert shown == {"pattern": "def \\w+", "path": "src", "glob": "*.py", "ignore_case": True}
    assert summary("glob", pattern="**/*.py", path=None) == {"pattern": "**/*.py", "path": {"type": "null"}}


def test_content_shows_its_size_in_bytes_only():
    assert summary("write", path="f", content=CANARY + "é") == {
        "path": "f",
        "content": {"type": "string", "bytes": len(CANARY) + 2},
    }
    shown = summary("edit", path="f", old_string=CANARY, new_string=CANARY * 2, replace_all=False)
    assert CANARY not in str(shown)
    assert shown["new_string"] == {"type": "string", "bytes": 2 * len(CANARY)}


@pytest.mark.parametrize("tool", ["mcp__mail__send", "BASH", "bash ", "", "read\x00", "x" * 10_000, "\ud800"])
def test_an_unknown_tool_shows_names_types_and_sizes(tool):
    shown = summary(tool, path=CANARY, n=5, yes=True, none=None, list=[CANARY, 2], map={CANARY: CANARY})
    assert shown == {
        "path": {"type": "string", "bytes": len(CANARY)},
        "n": {"type": "number"},
        "yes": {"type": "boolean"},
        "none": {"type": "null"},
        "list": {"type": "array", "items": 2},
        "map": {"type": "object", "fields": 1},
    }


@pytest.mark.parametrize("value", [["x", CANARY], {"path": CANARY}, 5, None, True])
def test_a_field_of_another_type_than_its_tool_takes_shows_type_and_size(value):
    for tool, field in (("read", "path"), ("bash", "command"), ("webfetch", "url")):
        shown = summary(tool, **{field: value})
        assert set(shown[field]) <= {"type", "items", "fields"}
    assert summary("read", offset=CANARY) == {"offset": {"type": "string", "bytes": len(CANARY)}}


@pytest.mark.parametrize(
    "name",
    [CANARY + " and more", "x" * 41, "a\nb", "é", "", "0x", "ghp_" + "a1" * 18, "$malformed"],
)
def test_a_name_that_is_no_name_is_counted_but_not_shown(name):
    assert summary("other", **{name: 1, "b": 2}) == {"b": {"type": "number"}, "$more": 1}


def test_of_many_fields_the_rest_are_counted():
    shown = summary("other", **{f"field_{index}": index for index in range(500)})
    assert len(shown) == 13
    assert shown["$more"] == 488


@pytest.mark.parametrize("text", ["{", '{"command": "ls', "nonsense", '{"a": 1} x', "[" * 100_000, '{"a":' * 100_000])
def test_malformed_arguments_show_their_size_only(text):
    assert json.loads(summarize_args("bash", text)) == {"$malformed": {"bytes": len(text)}}


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ('["a"]', {"type": "array", "items": 1}),
        ('"a"', {"type": "string", "bytes": 1}),
        ("1", {"type": "number"}),
        ("null", {"type": "null"}),
        ("NaN", {"type": "number"}),
    ],
)
def test_arguments_that_are_no_object_show_type_and_size(text, shape):
    assert json.loads(summarize_args("bash", text)) == {"$malformed": shape}


@pytest.mark.parametrize("text", ["", " \n"])
def test_no_arguments_are_an_empty_object(text):
    assert summarize_args("bash", text) == "{}"


@pytest.mark.parametrize("number", ["9" * 5_000, "1e999", "-1e999", "NaN", "Infinity"])
def test_a_number_that_no_field_can_mean_shows_its_type(number):
    assert json.loads(summarize_args("read", f'{{"offset": {number}, "path": "f"}}')) == {
        "path": "f",
        "offset": {"type": "number"},
    }


def test_a_tool_that_would_run_has_its_fields_shown_however_its_json_is_written():
    """Raw line breaks in a string, a name twice, a long number: whoever writes them must not hide a path by it."""
    assert json.loads(summarize_args("read", '{"path": "a\nb", "limit": 1}')) == {"path": "a\nb", "limit": 1}
    assert json.loads(summarize_args("read", '{"path": "a", "path": "b"}')) == {"path": "b"}
    assert json.loads(summarize_args("read", f'{{"path": "a", "x": {"9" * 5_000}}}'))["path"] == "a"


def test_a_secret_that_json_writes_in_escapes_is_found():
    escaped = "".join(f"\\u{ord(character):04x}" for character in "ghp_" + "a1" * 18)
    assert summarize_args("read", f'{{"path": "{escaped}"}}') == '{"path":"[redacted:github]"}'


def test_characters_that_move_a_terminal_s_cursor_or_turn_its_writing_are_not_shown():
    shown = summary("bash", command="ls \x1b[2J\x00\u202e\ud800\x9b a\tb\nc")["command"]
    assert shown == "ls \ufffd[2J\ufffd\ufffd\ufffd\ufffd a\tb\nc"


def test_of_a_long_value_the_beginning_and_the_end_are_shown_with_the_bytes_between():
    shown = summary("read", path="a" + "é" * 2_000 + "z")["path"]
    (parts,) = re.findall(r"^(aé+)\[… (\d+) bytes …\](é+z)$", shown)
    begin, between, end = parts
    assert len(shown.encode()) <= 512
    assert len(begin.encode()) + int(between) + len(end.encode()) == 4_002


@given(st.text(max_size=2_000), st.integers(0, 3_000), st.text(max_size=2_000), st.integers(0, 2_000))
def test_a_cut_text_fits_and_counts_what_is_missing(head, left_out, end, limit):
    size = len(head.encode()) + left_out + (len(end.encode()) if left_out else 0)
    shown = cut(head, limit, left_out, end if left_out else "")
    assert len(shown.encode()) <= limit
    if mark := re.search(r"\[… (\d+) bytes …\]", shown):
        assert len(shown.encode()) - len(mark[0].encode()) + int(mark[1]) == size


@pytest.mark.parametrize("space", [" ", "\t", "\n", " \n", " \t \n\n"])
def test_white_space_hides_no_command(space):
    for count in (6_000, 40_000):
        shown = summary("bash", command=f"ls{space * count}rm -rf /")["command"]
        assert shown in ("ls rm -rf /", "ls\trm -rf /", "ls\nrm -rf /"), shown[:100]


def test_what_stands_at_the_end_of_a_long_command_is_shown():
    shown = summary("bash", command="true;" * 2_000 + " rm -rf /")["command"]
    assert shown.startswith("true;true;")
    assert shown.endswith(" rm -rf /")


def test_white_space_is_folded_only_after_content_was_taken_away():
    """A here-document's line that only looks like its end once it is folded does not end it."""
    shown = summary("bash", command=f"cat > f <<E\na\n   E\n{CANARY}\nE\nls")["command"]
    assert shown == f"cat > f <<E\n[heredoc: {len(CANARY) + 8} bytes]\nE\nls"
    long = f"cat > f <<E\n{'x' * 30_000}{' ' * 3_000}\n{' ' * 20}E\n{CANARY}\nE\nls"
    assert CANARY not in summary("bash", command=long)["command"]


def test_of_a_key_that_begins_in_what_is_left_out_nothing_is_shown():
    key = "\n".join(["aB3d" * 16] * 50) + "\nshort=\n-----END RSA PRIVATE KEY-----"
    shown = summary("read", path="p " * 4_000 + "-----BEGIN RSA PRIVATE KEY-----\n" + key + " tail")["path"]
    assert "short" not in shown
    assert "aB3d" not in shown
    assert shown.endswith(" tail")


def test_of_a_command_longer_than_a_system_takes_the_beginning_is_shown():
    shown = summary("bash", command="ls " * 20_000)["command"]
    assert shown.startswith("ls ls ls ")
    assert re.search(r"\[… \d+ bytes …\]$", shown)


def test_a_secret_that_is_cut_where_a_command_is_too_long_is_not_shown_in_part():
    secret = "ghp_" + "a1b2c3d4" * 5
    for size in range(32_660, 32_768):
        shown = summary("bash", command=f"cat <<E\n{'x' * size}\nE\nrun {secret} now")["command"]
        assert not pieces_of(secret, shown)
        assert shown.startswith("cat <<E\n")


def test_a_command_of_one_huge_word_shows_nothing_of_it():
    assert CANARY not in summary("bash", command=CANARY + "x" * 40_000)["command"]


def test_a_parameter_that_a_known_tool_does_not_have_is_counted_and_never_named():
    """A model can put what it has read into the name of an argument."""
    assert summary("bash", command="true", thepatienthasgout=1) == {"command": "true", "$more": 1}
