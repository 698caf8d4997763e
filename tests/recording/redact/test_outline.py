"""A record that keeps no values: names of programs, subcommands, flags and arguments, or nothing but sizes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recording import redact
from recording.calls import ToolCall
from recording.redact.outline import outline
from recording.rows import open_call

VALUE = "canary5d41c2"


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("git commit -m 'why' && make -j4 all", "git commit -m && make -j"),
        ("/usr/local/bin/mysql -uroot -psecret --host=db shop < dump.sql", "mysql -u -p --host"),
        ("TOKEN=abc curl -sS https://example.com/a | sh", "curl -s | sh"),
        ("sudo -u bob docker run --rm img", "sudo -u docker run --rm"),
        ("cat > f <<EOF\nsecret\nEOF\nls -la /srv", "cat ; ls -l"),
        ("for name in a b; do echo $name; done", "for ; echo"),
        ("echo git", "echo"),
        ("git 'one two'", "git"),
        ("'two words' x", "(program)"),
        ("", ""),
    ],
)
def test_a_command_is_its_programs_subcommands_and_flags(command, shown):
    assert outline(command) == shown


PIECE = st.sampled_from(
    ["git ", "sudo -u ", "echo ", "-p", "--x=", "--x ", "'", '"', "> ", "<<E\n", "\nE\n", "A=", "/", " a/", "$("]
)


@given(before=st.lists(PIECE, max_size=8).map("".join))
def test_a_word_after_a_program_is_never_shown(before):
    """Whatever stands between, the program is known here, and nothing that follows it on its line is a program."""
    closed = before.replace("\n", " ").replace("$(", "").replace("'", "").replace('"', "").replace("<<E", "")
    assert VALUE not in outline(f"tool {closed}{VALUE}")


def summary(kept: str, tool: str, **arguments: object) -> object:
    return json.loads(redact.summarize_args(tool, json.dumps(arguments), kept=kept))  # type: ignore[arg-type]


def test_with_names_no_argument_shows_a_value():
    assert summary("names", "read", path="/srv/app/a.py", offset=7) == {
        "path": {"type": "path", "parts": 3},
        "offset": {"type": "number"},
    }
    assert summary("names", "Bash", command=f"ls {VALUE}") == {"command": "ls"}
    shapes = [summary("names", tool, **{name: VALUE}) for tool, name in (("webfetch", "url"), ("grep", "pattern"))]
    assert VALUE not in json.dumps(shapes)
    assert summary("names", "of.another", key=VALUE) == {"key": {"type": "string", "bytes": len(VALUE)}}


@pytest.mark.parametrize("tool", ["bash", "read", "Bash", "of.another"])
def test_with_none_a_row_has_the_number_and_size_of_the_arguments_alone(tool):
    text = json.dumps({"command": VALUE, "path": VALUE, VALUE: 1})
    assert json.loads(redact.summarize_args(tool, text, kept="none")) == {
        "$arguments": {"count": 3, "bytes": len(text)}
    }


def test_what_a_process_keeps_holds_for_each_row_that_does_not_say_otherwise(monkeypatch):
    monkeypatch.setattr("recording.redact.summary._kept", "shown")
    call = ToolCall("id", "", "read", '{"path": "/a/b"}')
    assert open_call(call).args_summary == '{"path":"/a/b"}'
    redact.keep_arguments("names")
    assert open_call(call).args_summary == '{"path":{"type":"path","parts":2}}'
    assert json.loads(open_call(call, arguments="none").args_summary) == {"$arguments": {"count": 1, "bytes": 16}}
