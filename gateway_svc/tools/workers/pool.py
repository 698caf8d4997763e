"""Starts a bounded number of workers, and ends them with their call, their time and the gateway."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from gateway_svc.tools.jail.processes import Program, ProgramResult, run_program
from gateway_svc.tools.output import HeadTail

MAIN = str(Path(__file__).with_name("main.py").resolve())
WANTED = "WANTED"
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": os.defpath}

Job = Literal["search", "page"]


class Workers:
    """Limits how many workers run at once. None outlives its call."""

    def __init__(self, at_once: int = 8) -> None:
        """Half of `at_once` is for each kind of job, so that pages never keep searches waiting."""
        self._places = {job: asyncio.Semaphore(max(at_once // 2, 1)) for job in ("search", "page")}

    async def run(
        self,
        job: Job,
        wanted: Mapping[str, object],
        *,
        stdin: int = subprocess.DEVNULL,
        folder: int | None = None,
        timeout_seconds: float,
        max_output_bytes: int,
        stop_at_bytes: int | None = None,
    ) -> ProgramResult:
        """Runs a job in a worker of its own. Waiting for a slot counts towards its time.

        `wanted` is passed to the job as JSON. `folder` is the descriptor of its working directory.

        Raises:
            OSError: no process can be started.
        """
        argv = [sys.executable, "-I", "-S", MAIN, job, _packages() if job == "page" else "", str(os.getpid())]
        here = "/" if folder is None else f"/proc/self/fd/{folder}"
        # Not in argv, which every user of the machine can read: a URL or a pattern may hold a secret.
        env = {**ENVIRONMENT, WANTED: json.dumps(wanted)}
        program = Program(argv, here, env, stdin=stdin, starts_others=False)
        deadline = time.monotonic() + timeout_seconds
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._places[job].acquire()
        except TimeoutError:
            return ProgramResult(None, HeadTail(0), timed_out=True)
        try:
            return await run_program(
                program,
                timeout_seconds=max(deadline - time.monotonic(), 0.0),
                max_output_bytes=max_output_bytes,
                stop_at_bytes=stop_at_bytes,
            )
        finally:
            self._places[job].release()


def _packages() -> str:
    """The folder with the package that converts pages, and others."""
    found = find_spec("html_to_markdown")
    if found is None or found.origin is None:
        raise OSError("the package html-to-markdown is not installed")
    return str(Path(found.origin).parent.parent)
