"""A tool is one new file: it is found, set, offered, run and recorded, and nothing else names it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from gateway_svc import tools
from gateway_svc.errors import SettingsError
from gateway_svc.tools import ToolContext, kinds
from gateway_svc.tools.files import Files
from gateway_svc.tools.jail import confine, sandbox
from gateway_svc.tools.toolbox import Toolbox
from recording import redact
from recording.calls import ToolCall
from recording.show import Show

ADDED = str(Path(__file__).with_name("added"))


@pytest.fixture
def added() -> Iterator[None]:
    """The folder of this test's tools is a part of the package of tools."""
    tools.__path__.append(ADDED)
    kinds.kinds.cache_clear()
    yield
    tools.__path__.remove(ADDED)
    kinds.kinds.cache_clear()
    for name in [
        name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(ADDED)
    ]:
        del sys.modules[name]


async def test_a_new_file_is_a_tool_with_settings_schema_and_a_summary(added, monkeypatch, workspace):
    monkeypatch.setenv("GATEWAY_TALLY_UNIT", "octets")
    (workspace / "a").write_text("12345")
    (workspace / ".b").write_text("123")
    offered = kinds.build_tools(["tally"], 60, [])
    toolbox = Toolbox(offered.tools)
    (definition,) = toolbox.definitions()
    assert (definition.name, definition.parameters["required"]) == ("tally", ["path"])
    arguments = json.dumps({"path": ".", "hidden": True, "remark": "words"})
    with Files(workspace) as files:
        result = await toolbox.run(ToolCall("row", "call", "tally", arguments), ToolContext(files))
        outside = await toolbox.run(ToolCall("row", "call", "tally", '{"path": ".."}'), ToolContext(files))
    assert result.text == "2 files, 8 octets"
    assert outside.error == "the path leads outside the workspace"
    redact.show_fields(kinds.shown())
    assert json.loads(redact.summarize_args("tally", arguments)) == {
        "path": ".",
        "hidden": True,
        "remark": {"type": "string", "bytes": 5},
    }


def test_the_tools_are_those_of_the_package():
    assert list(kinds.kinds()) == ["bash", "edit", "glob", "grep", "read", "webfetch", "write"]


def test_what_is_content_is_shown_by_its_size_alone():
    """A reader of this table decides what of a call goes on the record."""
    hidden = {
        (tool, field) for tool, fields in kinds.shown().items() for field, how in fields.items() if how is Show.SHAPE
    }
    assert hidden == {("edit", "old_string"), ("edit", "new_string"), ("write", "content")}


@pytest.fixture
def no_jail(tmp_path, monkeypatch):
    """A machine without bubblewrap and Landlock, with what the other tools need."""
    monkeypatch.setattr(confine, "version", lambda: 0)
    (tmp_path / "bash").symlink_to("/bin/bash")
    monkeypatch.setenv("PATH", str(tmp_path))


def test_without_a_jail_nothing_is_offered_that_starts_programs(no_jail):
    with structlog.testing.capture_logs() as logs:
        offered = kinds.build_tools(["read", "bash"], 600, [])
    assert [tool.name for tool in offered.tools] == ["read"]
    assert offered.jail == ""
    assert [(log["event"], log.get("tool")) for log in logs] == [
        ("sandbox.missing", None),
        ("tools.not_offered", "bash"),
    ]


def test_a_deployment_that_says_so_does_without_the_jail(no_jail, monkeypatch):
    monkeypatch.setenv("GATEWAY_BASH_SANDBOX", "off")
    monkeypatch.setattr(sandbox, "in_container", lambda: True)
    offered = kinds.build_tools(["read", "bash"], 600, [])
    assert ([tool.name for tool in offered.tools], offered.jail) == (["read", "bash"], "none")
    assert kinds.build_tools(["read"], 600, []).jail == ""


def test_root_outside_a_container_does_not_do_without_the_jail(no_jail, monkeypatch):
    monkeypatch.setenv("GATEWAY_BASH_SANDBOX", "off")
    monkeypatch.setattr(sandbox, "in_container", lambda: False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(SettingsError, match="runs as root outside a container"):
        kinds.build_tools(["bash"], 600, [])
    monkeypatch.setenv("GATEWAY_BASH_SANDBOX", "off_as_root")
    assert kinds.build_tools(["bash"], 600, []).jail == "none"
