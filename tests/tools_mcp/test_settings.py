"""The file that names MCP servers: what is wrong is told with its place and without any value."""

import json
from pathlib import Path

import pytest

from gateway_svc.errors import SettingsError
from gateway_svc.tools.mcp.settings import load_servers
from recording import redact
from recording.show import Show

SECRET = "sk-sentinel-0123456789"


def written(folder: Path, content: object, name: str = "mcp.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps({"mcpServers": content}))
    return path


def test_json_and_toml_say_the_same(tmp_path):
    as_json = written(
        tmp_path,
        {
            "files": {"command": "srv", "args": ["-x"], "env": {"K": "${TOKEN}"}, "tools": {"write": "ask"}},
            "web": {"type": "http", "url": "https://e.org/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}},
            "off": {"command": "x", "disabled": True},
        },
    )
    as_toml = written(
        tmp_path,
        '[mcpServers.files]\ncommand = "srv"\nargs = ["-x"]\nenv = { K = "${TOKEN}" }\ntools = { write = "ask" }\n'
        '[mcpServers.web]\ntype = "http"\nurl = "https://e.org/mcp"\n'
        'headers = { Authorization = "Bearer ${TOKEN}" }\n[mcpServers.off]\ncommand = "x"\ndisabled = true\n',
        "mcp.toml",
    )
    servers = load_servers(as_json, {"TOKEN": SECRET})
    assert servers == load_servers(as_toml, {"TOKEN": SECRET})
    assert servers.keys() == {"files", "web"}
    assert servers["files"].env == {"K": SECRET}
    assert servers["files"].secrets == (SECRET,)
    assert servers["web"].secrets == (f"Bearer {SECRET}",)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not valid JSON"),
        ("[]", "the one key mcpServers"),
        ('{"mcpServers": {}, "more": 1}', "the one key mcpServers"),
        ({"a.b": {"command": "x"}}, "letters, digits"),
        ({"a": {}}, "a: name either a command or a url"),
        ({"a": {"command": "x", "url": "http://e"}}, "a: name either a command or a url"),
        ({"a": {"command": "x", "type": "sse"}}, "a.type: Input should be"),
        ({"a": {"command": "x", "type": "http"}}, "a server of type http needs a url"),
        ({"a": {"url": "http://e", "type": "stdio"}}, "a server of type stdio needs a command"),
        ({"a": {"url": "ftp://e"}}, "a.url: must be a URL such as https://"),
        ({"a": {"command": "x", "autoApprove": [SECRET]}}, "a.autoApprove: Extra inputs are not permitted"),
        ({"a": {"command": "x", "policy": "perhaps"}}, "a.policy"),
        ({"a": {"command": "x", "env": {"K": "${NOT_SET}"}}}, "a.env.K: the environment variable NOT_SET is not set"),
        ({"a": {"command": "x", "env": {"K": "${OPENAI_API_KEY}"}}}, "OPENAI_API_KEY is the gateway's own"),
        ({"a": {"url": "http://e", "headers": {"X": "${GATEWAY_TOKEN}"}}}, "GATEWAY_TOKEN is the gateway's own"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, content, told):
    environment = {"OPENAI_API_KEY": SECRET, "GATEWAY_TOKEN": SECRET}
    with pytest.raises(SettingsError, match=r"^GATEWAY_MCP_FILE: ") as caught:
        load_servers(written(tmp_path, content), environment)
    assert told in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        load_servers(tmp_path / "none.json", {})


def test_arguments_show_where_the_file_says_so_and_else_by_name_type_and_size(monkeypatch):
    """A secret in one that shows is not shown."""
    monkeypatch.setattr("recording.redact.summary._shown", {})
    arguments = json.dumps({"path": "a.txt", "body": "content", "n": 3, "deep": {"x": 1}})
    shapes = {"body": {"type": "string", "bytes": 7}, "n": {"type": "number"}, "deep": {"type": "object", "fields": 1}}
    assert json.loads(redact.summarize_args("files.put", arguments)) == {
        "path": {"type": "string", "bytes": 5},
        **shapes,
    }
    redact.show_fields({"files.put": dict.fromkeys(("path", "n", "deep"), Show.VALUE)})
    assert json.loads(redact.summarize_args("files.put", arguments)) == {**shapes, "path": "a.txt", "n": 3}
    assert json.loads(redact.summarize_args("other.put", arguments))["path"] == {"type": "string", "bytes": 5}
    leaky = json.dumps({"path": "postgres://u:hunter2hunter2@db/x"})
    assert "hunter2" not in redact.summarize_args("files.put", leaky)
