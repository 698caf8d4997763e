"""Commands in processes of their own that begin with their imports done: forks of one that has them.

Most of a short command's time is its imports. Each process of pytest keeps one process that forks, which ends with it.
It reads one JSON object a line, the fields of an `_Order`, and answers each with {"exit", "stdout", "stderr"}.
"""

import atexit
import gc
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, NoReturn

from demo.processes import REPOSITORY, environment

_WARM = {
    "audit_svc": (
        *("audit_svc.server", "audit_svc.terminal.serving", "audit_svc.terminal.care", "audit_svc.terminal.compare"),
        *("audit_svc.terminal.export", "audit_svc.terminal.file", "audit_svc.terminal.producers"),
        *("audit_svc.terminal.queries", "audit_svc.terminal.schema"),
    ),
    "gateway_svc": (
        "gateway_svc.serving",
        "gateway_svc.server",
        "gateway_svc.tools.kinds",
        "gateway_svc.engines.kinds",
    ),
    "intake_svc": ("intake_svc.serving", "intake_svc.server"),
    "onrecord_cli": ("audit_svc.terminal.queries", "audit_svc.terminal.export", "gateway_svc.terminal.turns"),
}
"""By module: what its commands import when they run, and so no user need be able to read."""


@dataclass
class _Order:
    module: str
    args: list[str]
    env: dict[str, str]
    folder: str
    uid: int


def run_command(
    module: str, env: Mapping[str, str], *args: str, folder: Path = REPOSITORY, uid: int = 0
) -> subprocess.CompletedProcess[str]:
    """What `python -m module args` does in a folder with env, as `demo.processes.run_command` runs it; as a user."""
    asked, told = _forking()
    order = _Order(module, list(args), environment(env), str(folder), uid)
    asked.write(json.dumps(asdict(order)) + "\n")
    asked.flush()
    answer = json.loads(told.readline())
    return subprocess.CompletedProcess([module, *args], answer["exit"], answer["stdout"], answer["stderr"])


@cache
def _forking() -> tuple[IO[str], IO[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        env=environment({}),
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    atexit.register(process.__exit__, None, None, None)
    return process.stdin, process.stdout


def _main() -> None:
    """Answers until stdin ends."""
    for line in sys.stdin:
        order = _Order(**json.loads(line))
        for name in (*_WARM[order.module], f"{order.module}.__main__"):
            import_module(name)
        gc.freeze()  # the collector would copy, in each fork, what they share
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork() or _run(order, out, err)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            answer = {"exit": code, **{name: _text(file) for name, file in (("stdout", out), ("stderr", err))}}
        print(json.dumps(answer), flush=True)


def _run(order: _Order, out: IO[bytes], err: IO[bytes]) -> NoReturn:
    """Becomes the command. Its modules are not taken down at its end, which takes longer than the command."""
    code: object = 1
    try:
        _settle(order, out, err)
        import_module(f"{order.module}.__main__").main()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - it is told on stderr
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _settle(order: _Order, out: IO[bytes], err: IO[bytes]) -> None:
    """Gives the process what a new one would have."""
    with open(os.devnull) as nothing:  # noqa: PTH123 - a descriptor
        os.dup2(nothing.fileno(), 0)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    if order.uid:
        os.setgroups([])
        os.setgid(order.uid)
        os.setuid(order.uid)
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.env)
    tempfile.tempdir = None  # which is that of the process that forks, once it has made a file
    sys.argv = [order.module, *order.args]


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


if __name__ == "__main__":
    _main()
