"""The tool `bash`: a shell command in the workspace, sandboxed where the machine allows it."""

import ctypes
import math
import os
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from onrecord.audit.v1 import audit_pb2
from pydantic import Field

from gateway_svc.errors import SettingsError
from gateway_svc.tools import ToolContext, ToolError, ToolResult
from gateway_svc.tools.arguments import Arguments, PlainText
from gateway_svc.tools.processes import Ended, Program, children, run_program
from gateway_svc.tools.sandbox import Sandbox

MAX_COMMAND_BYTES = 100_000
PASSED_VARIABLES = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER")
SIGNALLED = 128
PR_SET_DUMPABLE = 4
# The limits are set by a shell that then becomes the command's: Python can set them for a child only by running code
# between fork and exec, which is not safe in a process with threads. The memory limit is on data: on addresses it would
# stop runtimes that reserve far more than they use. When memory runs out, the kernel shall end this process first.
PRELUDE = "ulimit -c 0 -d {data} -u {processes} -f {file} -t {cpu} -n {open} || exit 126; "
PRELUDE += '{{ echo 1000 >/proc/self/oom_score_adj; }} 2>/dev/null; exec "$BASH" -c -- "$1"'

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BashLimits:
    """What a command may use. Memory, CPU time and file size count for each of its processes."""

    max_memory_bytes: int = 4 * 1024**3
    max_processes: int = 512
    max_file_bytes: int = 1024**3
    max_cpu_seconds: int = 600
    max_open_files: int = 4096


class BashArguments(Arguments):
    """The arguments of `bash`."""

    command: PlainText = Field(min_length=1, description="The command line, as bash takes it.")
    timeout_seconds: float | None = Field(None, gt=0, description="End the command after so many seconds.")


class BashTool:
    """Runs a command."""

    name = "bash"
    description = "Runs a bash command in the workspace and returns what it writes. It cannot read from a terminal."
    parameters = BashArguments

    def __init__(
        self,
        sandbox: Sandbox | None,
        *,
        network: bool = False,
        timeout_seconds: float = 120,
        max_output_bytes: int = 48_000,
        limits: BashLimits | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`sandbox` comes from find_sandbox. `timeout_seconds` is the most that a command may take.

        `environment` is where the few variables that a command sees are taken from: os.environ unless it is given.

        Raises:
            SettingsError: this machine has no bash.
        """
        bash = shutil.which("bash")
        if bash is None:
            raise SettingsError("the tool bash is offered, and bash is not installed")
        self._bash = bash
        self._sandbox = sandbox
        self._network = network
        self._timeout_seconds = timeout_seconds
        self._max_output_bytes = max_output_bytes
        self._limits = limits or BashLimits()
        self._env = _environment(os.environ if environment is None else environment, sandboxed=sandbox is not None)
        self._prelude = _prelude(self._limits)
        if sandbox is None:
            _hide_own_environment()

    async def run(self, arguments: BashArguments, context: ToolContext) -> ToolResult:
        """Runs the command to its end.

        Raises:
            ToolError: it could not be started, ran too long, or went over a limit.
        """
        if len(arguments.command.encode()) > MAX_COMMAND_BYTES:
            raise ToolError(f"the command is longer than {MAX_COMMAND_BYTES} bytes")
        argv = [self._bash, "-c", self._prelude, "bash", arguments.command]
        if self._sandbox:
            argv = self._sandbox.wrap(argv, context.workspace, network=self._network)
        seconds = min(arguments.timeout_seconds or self._timeout_seconds, self._timeout_seconds)
        try:
            ended = await run_program(
                Program(argv, context.workspace, self._env, sandboxed=self._sandbox is not None),
                timeout_seconds=seconds,
                max_output_bytes=self._max_output_bytes,
                watch=self._count_processes if self._sandbox and os.geteuid() == 0 else None,
            )
        except OSError as error:
            raise ToolError(f"the command could not be started ({type(error).__name__})") from None
        return _result(ended, seconds)

    def _count_processes(self, pid: int) -> str | None:
        """Why the command has too many processes; None when it has not. The kernel does not hold root to the limit."""
        for root in children(pid):
            try:
                count = sum(entry.name.isdecimal() for entry in Path(f"/proc/{root}/root/proc").iterdir())
            except OSError:
                continue
            if count > self._limits.max_processes:
                return f"the command had more than {self._limits.max_processes} processes and was ended"
        return None


def _result(ended: Ended, seconds: float) -> ToolResult:
    output = ended.output.text()
    size, truncated = ended.output.total, ended.output.truncated
    if ended.timed_out or ended.overstepped:
        message = ended.overstepped or f"the command ran longer than {seconds:g} s and was ended"
        raise ToolError(
            message,
            outcome=audit_pb2.OUTCOME_TIMED_OUT if ended.timed_out else audit_pb2.OUTCOME_FAILED,
            text=f"{output}\n[Error: {message}]".lstrip("\n"),
            result_bytes=size,
            result_truncated=truncated,
        )
    code = ended.exit_code
    if code:
        by_signal = f", ended by signal {code - SIGNALLED}" if code > SIGNALLED else ""
        output = f"{output}\n[exit code {code}{by_signal}]".lstrip("\n")
    return ToolResult(output or "[no output]", exit_code=code, result_bytes=size, result_truncated=truncated)


def _environment(source: Mapping[str, str], *, sandboxed: bool) -> dict[str, str]:
    passed = {name: source[name] for name in PASSED_VARIABLES if name in source}
    passed.setdefault("PATH", os.defpath)
    if sandboxed:
        passed |= {"HOME": "/tmp", "TMPDIR": "/tmp", "USER": "agent", "LOGNAME": "agent"}  # noqa: S108 - its own /tmp
    return passed | {"TERM": "dumb", "PAGER": "cat", "GIT_PAGER": "cat", "GIT_TERMINAL_PROMPT": "0"}


def _prelude(limits: BashLimits) -> str:
    # Without a user namespace that counts by itself the limit is on all of the user's tasks, so those of now are added.
    processes = limits.max_processes + _own_tasks()
    return PRELUDE.format(
        data=_at_most(limits.max_memory_bytes, resource.RLIMIT_DATA, unit=1024),
        processes=_at_most(processes, resource.RLIMIT_NPROC),
        file=_at_most(limits.max_file_bytes, resource.RLIMIT_FSIZE, unit=1024),
        cpu=_at_most(limits.max_cpu_seconds, resource.RLIMIT_CPU),
        open=_at_most(limits.max_open_files, resource.RLIMIT_NOFILE),
    )


def _at_most(wanted: int, kind: int, unit: int = 1) -> int:
    """What bash's ulimit is told: no more than this process has itself, which only root could raise."""
    hard = resource.getrlimit(kind)[1]
    return math.ceil((wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)) / unit)


def _own_tasks() -> int:
    uid, count = os.getuid(), 0
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                count += len(list((process / "task").iterdir())) if process.stat().st_uid == uid else 0
            except OSError:  # it has ended
                continue
    return count


def _hide_own_environment() -> None:
    """Keeps processes of the same user from reading this one's environment and memory, where its keys are."""
    if ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning("bash.environment_readable")
