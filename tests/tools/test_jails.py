"""What confines commands: which jail a machine gets, and what it keeps from a command."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import structlog

from gateway_svc.errors import SettingsError
from gateway_svc.tools.bash import BashTool
from gateway_svc.tools.files import Files
from gateway_svc.tools.jail import confine, processes
from gateway_svc.tools.jail import sandbox as sandbox_module
from gateway_svc.tools.jail.landlock import Landlock, find_landlock
from gateway_svc.tools.jail.sandbox import Sandbox, SandboxMode, find_sandbox
from tests.tools.running import run


@pytest.mark.parametrize("mode", ["required", "bubblewrap", "landlock", "auto"])
def test_a_machine_without_a_jail_is_refused_or_told(
    mode: SandboxMode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(confine, "version", lambda: 0)
    with structlog.testing.capture_logs() as logs:
        if mode != "auto":
            with pytest.raises(SettingsError, match=f"GATEWAY_BASH_SANDBOX is {mode}, and that does not work here: "):
                find_sandbox(mode)
        else:
            assert find_sandbox("auto") is None
            assert [entry["event"] for entry in logs] == ["sandbox.missing"]


@pytest.mark.parametrize("mode", ["auto", "required"])
async def test_where_there_is_no_bubblewrap_landlock_takes_its_place(
    mode: SandboxMode,
    jails: Mapping[str, Sandbox],
    workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    if "landlock" not in jails:
        pytest.skip("landlock does not work on this machine")
    bash = shutil.which("bash")
    assert bash
    (tmp_path / "bash").symlink_to(bash)
    monkeypatch.setenv("container", "as root it is not offered elsewhere")
    monkeypatch.setenv("PATH", str(tmp_path))
    with structlog.testing.capture_logs() as logs:
        found = find_sandbox(mode)
    assert found == jails["landlock"]
    assert [(entry["jail"], entry["not_bubblewrap"]) for entry in logs] == [
        ("landlock", "bubblewrap: bwrap is not installed")
    ]
    command = "echo in >made; /usr/bin/cat made; echo out >../made || echo kept; : </proc/self/status || echo kept"
    result = await run(BashTool(found), workspace, command=command)
    assert [line for line in result.text.splitlines() if ":" not in line] == ["in", "kept", "kept"]


@pytest.mark.parametrize("mode", ["auto", "landlock"])
def test_root_outside_a_container_is_not_confined_by_landlock(
    mode: SandboxMode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It could change the modes of the system's own files."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sandbox_module, "in_container", lambda: False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    if mode == "auto":
        assert find_sandbox(mode) is None
    else:
        with pytest.raises(SettingsError, match="root outside a container"):
            find_sandbox(mode)


def test_what_landlock_cannot_hide_is_refused(jails: Mapping[str, Sandbox], workspace: Path, tmp_path: Path):
    if "landlock" not in jails:
        pytest.skip("landlock does not work on this machine")
    assert "cannot hide" in str(find_landlock([tmp_path], [tmp_path / "state"]))
    jail = find_landlock([], [workspace / "state"])
    assert isinstance(jail, Landlock)
    with Files(workspace) as files, pytest.raises(PermissionError):
        jail.program(["/bin/true"], files, {})


@pytest.mark.long
@pytest.mark.parametrize("abi", range(1, 8))
async def test_each_version_of_landlock_confines_files(abi: int, jails: Mapping[str, Sandbox], workspace: Path):
    """As far as a newer kernel, told to use no more, can show it."""
    if "landlock" not in jails or abi > confine.version():
        pytest.skip("this kernel has no such version")
    (workspace.parent / "secret").write_text("outside")
    command = "mkdir a; echo x >a/f; cat a/f ../secret; truncate -s 1 f; perl -e 'truncate(\"../secret\",0)'; rm -r a"
    result = await run(BashTool(Landlock(abi)), workspace, command=command)
    assert result.text.startswith("x\n")
    assert (workspace.parent / "secret").read_text() == "outside"
    assert os.listdir(workspace) == ["f"]  # noqa: PTH208 - names are wanted


@pytest.mark.parametrize(
    "command", ["ipcmk -M 4096", "ipcmk -Q", "ipcmk -S 1", "taskset -p 1 $PPID", "ionice -p 1 -c 3"]
)
async def test_what_namespaces_would_cover_is_closed_where_there_are_none(
    command: str, jails: Mapping[str, Sandbox], workspace: Path
):
    if "landlock" not in jails:
        pytest.skip("landlock does not work on this machine")
    result = await run(BashTool(jails["landlock"]), workspace, command=command)
    assert "not permitted" in result.text


@pytest.mark.long
async def test_a_commands_temporary_folder_is_its_own_and_goes_with_it(jails: Mapping[str, Sandbox], workspace: Path):
    """However deep it is, and whatever its modes are."""
    if "landlock" not in jails:
        pytest.skip("landlock does not work on this machine")
    command = (
        'echo $TMPDIR; test "$HOME" = $TMPDIR; cd; for i in {1..300}; do mkdir d && cd -P d 2>/dev/null; done;'
        " mkdir ~/closed ~/closed/in; chmod 0 ~/closed"
    )
    result = await run(BashTool(jails["landlock"]), workspace, command=command)
    folder = Path(result.text.splitlines()[0])
    assert folder.name.startswith(processes.TEMPORARY_PREFIX)
    assert not os.path.exists(folder)  # noqa: ASYNC240, PTH110 - nothing else runs


def test_a_bubblewrap_that_fails_is_refused_with_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2; exit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SettingsError, match="No permissions to create new namespace"):
        find_sandbox("bubblewrap")


async def test_what_is_hidden_is_not_there_and_what_is_visible_is(
    jails: Mapping[str, Sandbox], workspace: Path, tmp_path: Path
):
    """A state folder may lie in the workspace, or the workspace in the state folder."""
    if "bubblewrap" not in jails:
        pytest.skip("bubblewrap does not work on this machine")
    tools, state, database = tmp_path / "tools", workspace / "state", workspace / "audit.db"
    for folder in (tools, state, tools / "private"):
        folder.mkdir()
        (folder / "file").write_text(f"in {folder.name}")
    database.write_text("rows")
    hide = [state, database, tools / "private", workspace.parent]
    found = find_sandbox("bubblewrap", visible=[tools], hide=hide)
    command = f"cat {tools}/file; ls {state} {tools}/private; cat audit.db; touch {tools}/x; echo mine > new; cat new"
    result = await run(BashTool(found), workspace, command=command)
    assert "in tools" in result.text
    assert "in state" not in result.text
    assert "rows" not in result.text
    assert "Read-only file system" in result.text
    assert result.text.endswith("mine\n")
    assert not (tools / "x").exists()
