"""The tool bash: a command's output and exit code, its limits, and that nothing of it stays."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import structlog
from onrecord.common.v1 import common_pb2

from gateway_svc.errors import SettingsError
from gateway_svc.tools import ToolContext, ToolError
from gateway_svc.tools.bash import BashArguments, BashLimits, BashTool
from gateway_svc.tools.files import Files
from gateway_svc.tools.jail import confine, leftovers, processes
from gateway_svc.tools.jail import sandbox as sandbox_module
from gateway_svc.tools.jail.landlock import Landlock, find_landlock
from gateway_svc.tools.jail.sandbox import Sandbox, SandboxMode, find_sandbox
from tests.tools.running import run


@pytest.fixture
def bash(sandbox: Sandbox | None) -> BashTool:
    return BashTool(sandbox, timeout_seconds=10)


@pytest.fixture
def nap() -> str:
    """A number of seconds that no other process sleeps for."""
    return str(random.randrange(10**7, 10**8))


def running(command_line: str) -> bool:
    return subprocess.run(["pgrep", "-cf", f"^sleep {command_line}"], capture_output=True, check=False).stdout != b"0\n"


async def eventually(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("command", "text", "exit_code"),
    [
        ("echo hello", "hello\n", 0),
        ("echo out; echo err >&2; echo out", "out\nerr\nout\n", 0),
        ("true", "[no output]", 0),
        ("exit 3", "[exit code 3]", 3),
        ("echo no; false", "no\n\n[exit code 1]", 1),
        ("printf x; exit 1", "x\n[exit code 1]", 1),
        ("kill -9 $$", "[exit code 137, ended by signal 9]", 137),
        ("exit 255", "[exit code 255]", 255),
        ("-x", "bash: line 1: -x: command not found\n\n[exit code 127]", 127),
        ("cat", "[no output]", 0),
        ("if then", None, 2),
        ("printf '\\xff\\xfe'", "\ufffd\ufffd", 0),
        ("x=a; y=$'b c'; echo \"$x\" '$y' \"$y\"", "a $y b c\n", 0),
        ("echo $0 $# $-", None, 0),
    ],
)
async def test_a_command_gives_its_output_and_its_exit_code(
    bash: BashTool, workspace: Path, command: str, text: str | None, exit_code: int
):
    """A command that exits 1 has run: that is no error of the tool's."""
    result = await run(bash, workspace, command=command)
    assert text is None or result.text.replace("/usr/bin/bash", "bash").replace("/bin/bash", "bash") == text
    assert (result.exit_code, result.error, result.outcome) == (exit_code, None, common_pb2.OUTCOME_SUCCEEDED)


async def test_it_runs_in_the_workspace_and_what_it_writes_stays(bash: BashTool, workspace: Path):
    result = await run(bash, workspace, command="pwd; mkdir sub; echo made > sub/file; ls -l sub | wc -l")
    assert result.text == f"{workspace}\n2\n"
    assert (workspace / "sub" / "file").read_text() == "made\n"
    assert (workspace / "sub" / "file").stat().st_uid == os.geteuid()


async def test_it_sees_a_few_variables_and_none_of_the_gateways(sandbox: Sandbox | None, workspace: Path):
    source = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "GATEWAY_OPENAI_API_KEY": "sk", "BASH_ENV": "/x", "A": "b"}
    result = await run(BashTool(sandbox, environment=source), workspace, command="env | cut -d= -f1 | sort")
    allowed = {
        "_",
        "GIT_PAGER",
        "GIT_TERMINAL_PROMPT",
        "HOME",
        "LANG",
        "LOGNAME",
        "OLDPWD",
        "ONRECORD_CALL",
        "PAGER",
        "GIT_CONFIG_NOSYSTEM",
    }
    allowed |= {"PATH", "PWD", "SHLVL", "TERM", "TMPDIR", "USER"}
    assert set(result.text.split()) <= allowed
    assert "LANG" in result.text


async def test_long_output_is_kept_by_its_head_and_tail(bash: BashTool, workspace: Path):
    result = await run(bash, workspace, command="seq 1 200000")
    size = sum(len(str(number)) + 1 for number in range(1, 200_001))
    assert (result.result_bytes, result.result_truncated, result.exit_code) == (size, True, 0)
    assert result.text.startswith("1\n2\n3\n")
    assert result.text.endswith("199999\n200000\n")
    assert len(result.text) < 50_100


@pytest.mark.long
async def test_output_without_end_takes_no_memory(sandbox: Sandbox | None, workspace: Path):
    bash = BashTool(sandbox, timeout_seconds=1, max_output_bytes=10_000)
    tracemalloc.start()
    try:
        result = await run(bash, workspace, command="yes")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.outcome == common_pb2.OUTCOME_TIMED_OUT
    assert (result.result_bytes or 0) > 500_000
    assert peak < 2_000_000


@pytest.mark.long
async def test_a_command_that_runs_too_long_is_asked_to_end_and_told_so(bash: BashTool, workspace: Path):
    command = "echo begun; trap 'echo tidied up; exit 0' TERM; while :; do sleep 0.02; done"
    result = await run(bash, workspace, command=command, timeout_seconds=1)
    assert (result.outcome, result.exit_code) == (common_pb2.OUTCOME_TIMED_OUT, None)
    assert result.error == "the command ran longer than 1 s and was ended"
    assert result.text.startswith("begun\n")
    assert "tidied up\n" in result.text
    assert result.text.endswith("[Error: the command ran longer than 1 s and was ended]")


async def test_a_command_that_ignores_that_is_killed(
    bash: BashTool, workspace: Path, nap: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(processes, "TERM_GRACE_SECONDS", 0.1)
    command = f"trap '' TERM; sleep {nap} & sleep {nap}"
    result = await run(bash, workspace, command=command, timeout_seconds=0.2)
    assert result.outcome == common_pb2.OUTCOME_TIMED_OUT
    assert not running(nap)


async def test_a_call_may_ask_for_less_time_and_not_for_more(sandbox: Sandbox | None, workspace: Path):
    bash = BashTool(sandbox, timeout_seconds=0.2)
    result = await run(bash, workspace, command="sleep 5", timeout_seconds=4)
    assert result.error == "the command ran longer than 0.2 s and was ended"


@pytest.mark.parametrize(
    "command",
    ["sleep {nap} & echo done", "setsid sleep {nap} >/dev/null 2>&1 & echo done", "(sleep {nap} &); echo done"],
)
async def test_what_a_command_leaves_behind_is_killed(bash: BashTool, workspace: Path, nap: str, command: str):
    result = await run(bash, workspace, command=command.format(nap=nap))
    assert (result.text, result.exit_code) == ("done\n", 0)
    assert not running(nap)


async def test_cancelling_kills_the_command_before_it_propagates(bash: BashTool, workspace: Path, nap: str):
    command = f"sleep {nap} & setsid sleep {nap} & sleep {nap}"
    call = asyncio.create_task(run(bash, workspace, command=command))
    await eventually(lambda: running(nap))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not running(nap)


async def test_cancelling_twice_kills_it_all_the_same(bash: BashTool, workspace: Path, nap: str):
    call = asyncio.create_task(run(bash, workspace, command=f"trap '' TERM; sleep {nap}"))
    await eventually(lambda: running(nap))
    call.cancel()
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: not running(nap) and not leftovers._under_way)


async def test_cancelling_at_any_moment_leaves_nothing(bash: BashTool, workspace: Path, nap: str):
    """Also while the sandbox is being made."""
    calls = [asyncio.create_task(run(bash, workspace, command=f"sleep {nap}")) for _ in range(12)]
    for number, call in enumerate(calls):
        await asyncio.sleep(0.001 * number)
        call.cancel()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*calls, return_exceptions=True))
    await eventually(lambda: not running(nap))


async def test_commands_side_by_side_do_not_meet(bash: BashTool, workspace: Path):
    results = await asyncio.gather(
        *(run(bash, workspace, command=f"sleep 0.05; echo {number}") for number in range(12))
    )
    assert [result.text for result in results] == [f"{number}\n" for number in range(12)]


async def test_the_event_loop_goes_on_under_a_flood(sandbox: Sandbox | None, workspace: Path):
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    task = asyncio.create_task(beat())
    await run(BashTool(sandbox, timeout_seconds=0.5), workspace, command="yes & yes & yes")
    task.cancel()
    assert beats > 5


async def test_no_descriptor_is_left_open(bash: BashTool, workspace: Path):
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names are wanted
    for command in ("echo hello", "sleep 1", "yes"):
        await run(bash, workspace, command=command, timeout_seconds=0.1)
    call = asyncio.create_task(run(bash, workspace, command="sleep 5"))
    await asyncio.sleep(0.05)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208 - names are wanted


async def test_a_workspace_that_is_gone_is_told(bash: BashTool, workspace: Path):
    with Files(workspace) as files:
        workspace.rmdir()  # noqa: ASYNC240
        with pytest.raises(ToolError, match="the workspace was removed"):
            await bash.run(BashArguments(command="true"), ToolContext(files))


async def test_a_command_that_is_too_long_is_told(bash: BashTool, workspace: Path):
    result = await run(bash, workspace, command="true " + "é" * 60_000)
    assert result.error == "the command is longer than 100000 bytes"
    assert (await run(bash, workspace, command="true " + "x" * 90_000)).exit_code == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("limits", "command", "ended"),
    [
        (BashLimits(max_file_bytes=1024**2), "head -c 2M /dev/zero > large", {128 + signal.SIGXFSZ, 1}),
        (BashLimits(max_cpu_seconds=1), "while :; do :; done", {128 + signal.SIGXCPU, 128 + signal.SIGKILL}),
        (BashLimits(max_memory_bytes=64 * 1024**2), "head -c 200M /dev/zero | tail -n 1 | wc -c", {0}),
        (BashLimits(max_open_files=16), 'for i in {10..40}; do eval "exec $i</dev/null" || exit 7; done', {7, 1}),
    ],
)
async def test_each_limit_holds(
    sandbox: Sandbox | None, workspace: Path, limits: BashLimits, command: str, ended: set[int]
):
    result = await run(BashTool(sandbox, limits=limits, timeout_seconds=10), workspace, command=command)
    assert result.exit_code in ended, result.text
    assert "209715200" not in result.text


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


def test_a_machine_without_bash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="bash is not installed"):
        BashTool(None)


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


def test_the_tools_that_the_tests_use_are_there():
    """Without these the tests above would find nothing, whatever happened."""
    assert all(shutil.which(name) for name in ("pgrep", "setsid", "sleep", "yes"))
