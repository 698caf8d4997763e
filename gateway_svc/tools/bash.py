"""The tool `bash`: a shell command in the workspace, sandboxed where the machine allows it."""

import ctypes
import math
import os
import resource
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import structlog
from onrecord.common.v1 import common_pb2
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from gateway_svc.errors import SettingsError
from gateway_svc.programs import installed
from gateway_svc.tools import Surroundings, ToolContext, ToolError, ToolKind
from gateway_svc.tools.arguments import Arguments, PlainText, Seconds
from gateway_svc.tools.files import Files
from gateway_svc.tools.jail.cgroups import find_process_groups
from gateway_svc.tools.jail.processes import MAX_TEMPORARY_FILES, Program, ProgramResult, run_program
from gateway_svc.tools.jail.sandbox import Sandbox
from recording.calls import ToolResult
from recording.show import Show
from service_kit import setting_types
from service_kit.settings import Settings

MAX_COMMAND_BYTES = 100_000
PASSED_VARIABLES = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER")
SIGNALLED = 128
PR_SET_DUMPABLE = 4
# The limits are set by a shell that then becomes the command's: Python can set them for a child only by running code
# between fork and exec, which is not safe in a process with threads. The memory limit is on data: on addresses it would
# stop runtimes that reserve far more than they use. When memory runs out, the kernel shall end this process first.
# Its stdin is a pipe that the gateway alone keeps open: where it has ended, the gateway was killed while the sandbox
# began. Each process of bubblewrap binds its life to the one before it, and does not notice if that is dead already.
PRELUDE = "read -t 0 && exit 126; ulimit -c 0 -d {data} -u {processes} -f {file} -t {cpu} -n {open} || exit 126; "
PRELUDE += '{{ echo 1000 >/proc/self/oom_score_adj; }} 2>/dev/null; exec "$BASH" -c -- "$1" </dev/null'

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BashLimits:
    """The limits of a command. Memory, CPU time and file size apply to each of its processes."""

    max_memory_bytes: int = 4 * 1024**3
    max_processes: int = 512
    max_file_bytes: int = 1024**3
    max_cpu_seconds: int = 600
    max_open_files: int = 4096


class BashArguments(Arguments):
    """The arguments of `bash`."""

    command: Annotated[PlainText, Show.COMMAND] = Field(min_length=1, description="The command line, as bash takes it.")
    timeout_seconds: Seconds = Field(None, gt=0, description="End the command after so many seconds.")


class BashTool:
    """Runs a command."""

    name = "bash"
    description = "Runs a bash command in the workspace and returns its output. It cannot read from a terminal."
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
        """`sandbox` comes from find_sandbox. `timeout_seconds` is the longest time of a command.

        `environment` is the source of the few variables that a command gets; default: os.environ.

        Raises:
            SettingsError: this machine has no bash.
        """
        bash = installed("bash")
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
        self._groups = find_process_groups() if os.geteuid() == 0 else None
        if os.geteuid() == 0 and self._groups is None:
            log.warning("bash.processes_unlimited", reason="the gateway runs as root, and cannot make control groups")
        if sandbox is None:
            _hide_own_environment()

    async def run(self, arguments: BashArguments, context: ToolContext) -> ToolResult:
        """Runs the command to its end.

        Raises:
            ToolError: it could not be started, or ran too long.
        """
        if len(arguments.command.encode()) > MAX_COMMAND_BYTES:
            raise ToolError(f"the command is longer than {MAX_COMMAND_BYTES} bytes")
        seconds = min(arguments.timeout_seconds or self._timeout_seconds, self._timeout_seconds)
        try:
            async with self._prefix() as prefix:
                with open_leash() as leash:
                    program = replace(self._program(arguments.command, context.files, prefix), stdin=leash)
                    ended = await run_program(program, timeout_seconds=seconds, max_output_bytes=self._max_output_bytes)
        except OSError as error:
            raise ToolError(f"the command could not be started ({type(error).__name__})") from None
        return _result(ended, seconds)

    def _prefix(self) -> AbstractAsyncContextManager[Sequence[str]]:
        if self._groups is None:
            return nullcontext(())
        return self._groups.limited(self._limits.max_processes, self._bash)

    def _program(self, command: str, files: Files, prefix: Sequence[str]) -> Program:
        argv = [self._bash, "-c", self._prelude, "bash", command]
        if self._sandbox is None:
            here = f"/proc/self/fd/{files.root}"
            return Program(argv, here, self._env, prefix=prefix)
        return self._sandbox.program(argv, files, self._env, network=self._network, prefix=prefix)


@contextmanager
def open_leash() -> Iterator[int]:
    """A pipe that ends with this process, and before it only with the block."""
    leash, held = os.pipe2(os.O_CLOEXEC)
    try:
        yield leash
    finally:
        os.close(leash)
        os.close(held)


def _result(ended: ProgramResult, seconds: float) -> ToolResult:
    output = ended.output.text()
    size, truncated = ended.output.total, ended.output.truncated
    if ended.crowded:
        message = f"the command made more than {MAX_TEMPORARY_FILES:,} temporary files, and was ended"
        raise ToolError(
            message,
            text=f"{output}\n[Error: {message}]".lstrip("\n"),
            result_bytes=size,
            result_truncated=truncated,
        )
    if ended.timed_out:
        message = f"the command ran longer than {seconds:g} s and was ended"
        raise ToolError(
            message,
            outcome=common_pb2.OUTCOME_TIMED_OUT,
            text=f"{output}\n[Error: {message}]".lstrip("\n"),
            result_bytes=size,
            result_truncated=truncated,
        )
    code = ended.exit_code
    if code:
        by_signal = f", ended by signal {code - SIGNALLED}" if 0 < code - SIGNALLED < signal.NSIG else ""
        output = f"{output}\n[exit code {code}{by_signal}]".lstrip("\n")
    return ToolResult(output or "[no output]", exit_code=code, result_bytes=size, result_truncated=truncated)


def _environment(source: Mapping[str, str], *, sandboxed: bool) -> dict[str, str]:
    passed = {name: source[name] for name in PASSED_VARIABLES if name in source}
    passed.setdefault("PATH", os.defpath)
    if sandboxed:
        passed |= {"HOME": "/tmp", "TMPDIR": "/tmp", "USER": "agent", "LOGNAME": "agent"}  # noqa: S108 - its own /tmp
    return passed | {"TERM": "dumb", "PAGER": "cat", "GIT_PAGER": "cat", "GIT_TERMINAL_PROMPT": "0"}


def _prelude(limits: BashLimits) -> str:
    # Without a user namespace the limit counts all of the user's tasks, so the current ones are added.
    processes = limits.max_processes + _own_tasks()
    return PRELUDE.format(
        data=_at_most(limits.max_memory_bytes, resource.RLIMIT_DATA, unit=1024),
        processes=_at_most(processes, resource.RLIMIT_NPROC),
        file=_at_most(limits.max_file_bytes, resource.RLIMIT_FSIZE, unit=1024),
        cpu=_at_most(limits.max_cpu_seconds, resource.RLIMIT_CPU),
        open=_at_most(limits.max_open_files, resource.RLIMIT_NOFILE),
    )


def _at_most(wanted: int, kind: int, unit: int = 1) -> int:
    """The value for bash's ulimit: at most this process's own limit, which only root could raise."""
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
    """Keeps processes of the same user from reading this one's environment and memory, which hold its keys."""
    if ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning("bash.environment_readable")


class BashSettings(Settings):
    """The settings of `bash`."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_BASH_")

    network: bool = Field(False, description="whether commands reach the network that the gateway reaches")
    seconds: setting_types.Seconds = Field(120, description="the longest command; less than GATEWAY_TOOL_SECONDS")


def _build(settings: BashSettings, surroundings: Surroundings) -> BashTool:
    if settings.seconds >= surroundings.call_seconds:
        raise SettingsError("GATEWAY_BASH_SECONDS: must be less than GATEWAY_TOOL_SECONDS, or output is lost")
    return BashTool(surroundings.jail, network=settings.network, timeout_seconds=settings.seconds)


KIND = ToolKind(BashTool, _build, BashSettings, starts_programs=True)
