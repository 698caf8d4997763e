"""The tool bash: a command's output and exit code, its limits, and that nothing of it stays."""

import asyncio
import os
import random
import shutil
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from onrecord.common.v1 import common_pb2

from gateway_svc.errors import SettingsError
from gateway_svc.tools import ToolContext, ToolError
from gateway_svc.tools.bash import BashArguments, BashLimits, BashTool
from gateway_svc.tools.files import Files
from gateway_svc.tools.jail import leftovers, processes
from gateway_svc.tools.jail.sandbox import Sandbox
from tests.support.processes import processes_of
from tests.tools.running import run


@pytest.fixture
def bash(sandbox: Sandbox | None) -> BashTool:
    return BashTool(sandbox, timeout_seconds=10)


@pytest.fixture
def nap() -> str:
    """A number of seconds that no other process sleeps for."""
    return str(random.randrange(10**7, 10**8))


def running(nap: str) -> bool:
    return bool(processes_of(f"sleep\0{nap}"))


async def eventually(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def test_nothing_runs_for_a_gateway_that_was_killed_meanwhile(
    bash: BashTool, workspace: Path, monkeypatch: pytest.MonkeyPatch
):
    """The sandbox would not notice: its processes bind their lives to the gateway one after another."""

    @contextmanager
    def ended() -> Iterator[int]:
        leash, held = os.pipe2(os.O_CLOEXEC)
        os.close(held)
        yield leash
        os.close(leash)

    monkeypatch.setattr("gateway_svc.tools.bash.open_leash", ended)
    result = await run(bash, workspace, command="echo ran; touch ran")
    assert result.exit_code == 126
    assert "ran" not in result.text
    assert not (workspace / "ran").exists()


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
    assert (workspace / "sub" / "file").read_text("utf-8") == "made\n"
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
    """Were it held, nobody could end the flood."""
    flood = asyncio.create_task(run(BashTool(sandbox, timeout_seconds=3600), workspace, command="yes & yes & yes"))
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert not flood.done()
    flood.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flood


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


def test_a_machine_without_bash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="bash is not installed"):
        BashTool(None)


def test_the_tools_that_the_tests_use_are_there():
    """Without these the tests above would find nothing, whatever happened."""
    assert all(shutil.which(name) for name in ("setsid", "sleep", "yes"))
