"""Runs command lines inside the process of a test."""

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple
from unittest import mock

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
    with mock.patch.dict(os.environ, env or {}), redirect_stdout(out), redirect_stderr(err):
        try:
            program.main(words)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    return Result(code, out.getvalue(), err.getvalue())
