"""Scripts: from a file or as objects, and which step comes when."""

import json

import pytest
from pydantic import ValidationError

from demo.script import Call, Refusal, Script, Step, load_script, position
from demo.script_formats import encode, skim, tokens_of

TOML = """
models = ["scripted"]

[[steps]]
text = "I will look."
repeat = 2
tool_calls = [
  { name = "read", arguments = { path = "README.md" } },
  { name = "bash", arguments = "{not json", id = "" },
]

[[steps]]
refuse = { status = 429, headers = { Retry-After = "1" }, times = 2 }

[pages."/pages/hello.html"]
body = "<h1>Hello</h1>"
"""


def test_a_toml_file_a_json_file_and_objects_say_the_same(tmp_path):
    calls = (Call(name="read", arguments={"path": "README.md"}), Call(name="bash", arguments="{not json", id=""))
    script = Script(
        models=("scripted",),
        steps=(
            Step(text="I will look.", repeat=2, tool_calls=calls),
            Step(refuse=Refusal(status=429, headers={"Retry-After": "1"}, times=2)),
        ),
        pages={"/pages/hello.html": {"body": "<h1>Hello</h1>"}},
    )
    (tmp_path / "a.toml").write_text(TOML, "utf-8")
    (tmp_path / "a.json").write_text(script.model_dump_json(), "utf-8")
    assert load_script(tmp_path / "a.toml") == load_script(tmp_path / "a.json") == script


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps = 1", "steps"),
        ('[[steps]]\ntexd = "typo"', "texd"),
        ("[[steps]]\nrepeat = 0", "repeat"),
        ("?", "line 1"),
    ],
)
def test_what_a_script_cannot_say_is_told(tmp_path, text, told):
    path = tmp_path / "a.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=told):
        load_script(path)


def test_a_script_does_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        setattr(Step(text="a"), "text", "b")  # noqa: B010 - the type checker would not let it through otherwise


def test_steps_follow_one_another_and_repeat():
    script = Script(steps=(Step(text="a", repeat=200), Step(text="b"), Step(text="c", repeat=2)))
    found = [script.step_at(at) for at in (0, 199, 200, 201, 202)]
    assert [(step[0], step[1].text) for step in found if step] == [(0, "a"), (0, "a"), (1, "b"), (2, "c"), (2, "c")]
    assert script.step_at(203) is None
    assert Script().step_at(0) is None


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("system user", 0),
        ("user assistant tool tool", 1),
        ("user assistant tool assistant tool", 2),
        ("user assistant user", 0),
        ("user assistant user assistant", 1),
        ("", 0),
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_the_position_is_counted_from_the_last_message_of_the_user(roles, expected, separators):
    """Also when the request is not parsed, and though a text quotes a request."""
    quote = '{"role":"user"},{"role": "assistant"}'
    messages = [{"role": role, "content": quote} for role in roles.split()]
    assert position(roles.split()) == expected
    request = {"model": "m", "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    body = json.dumps(request, separators=separators).encode()
    assert skim(body) == ({"model": "m", "stream": True, "stream_options": {"include_usage": True}}, expected)


@pytest.mark.parametrize("text", ["", " ", "one two", "  a\n\n\tb  ", "Grüße, 世界! 🙂…", "x" * 50, "a_b-c.d"])
def test_tokens_are_the_text_in_pieces(text):
    assert "".join(tokens_of(text)) == text
    assert all(tokens_of(text))


def test_json_is_written_as_the_real_servers_write_it():
    assert encode({"a": ["é", 1]}) == '{"a":["é",1]}'.encode()
