"""Runs command lines inside the process of a test."""

import fcntl
import io
import os
import pty
import struct
import termios
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple
from unittest import mock

from service_kit.terminal import printing
from service_kit.terminal.program import Program


class Result(NamedTuple):
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """All that was printed."""
        return self.stdout + self.stderr


def invoke(program: Program, words: Sequence[str], env: Mapping[str, str] | None = None) -> Result:
    """What program answers to words, with more variables in its environment."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    as_before = mock.patch.dict(printing._form)  # which --json changes for the whole process
    with mock.patch.dict(os.environ, env or {}), as_before, redirect_stdout(out), redirect_stderr(err):
        try:
            program.main(words)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    return Result(code, out.getvalue(), err.getvalue())


def sized(terminal: int) -> None:
    """Gives a terminal 80 columns and 24 lines."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))


def on_terminal(act: Callable[[], None]) -> str:
    """What act writes on a terminal of 80 columns and 24 lines."""
    leader, follower = pty.openpty()
    try:
        sized(follower)
        with open(follower, "w") as file, mock.patch.dict(os.environ), redirect_stdout(file), redirect_stderr(file):  # noqa: PTH123 - a descriptor
            os.environ.pop("COLUMNS", None)
            act()
            file.write("\0")
            file.flush()
            read = b""
            while not read.endswith(b"\0"):
                read += os.read(leader, 4096)
        return read.decode()[:-1].replace("\r\n", "\n")
    finally:
        os.close(leader)
