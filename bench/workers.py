"""Workers: processes that do the measuring, so that nothing measured shares a thread."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from demo.processes import REPOSITORY
from service_kit.observing.logs import configure_logging


class Worker:
    """A process that runs `python -m module`, as a context manager. Requests and answers are JSON objects."""

    def __init__(self, module: str, *, python: str = sys.executable, **options: Any) -> None:
        """`options` are what the worker's options() returns; `python` is the interpreter that runs it."""
        paths = [str(REPOSITORY), str(REPOSITORY / "protos")]
        self._process = subprocess.Popen(
            [python, "-m", module, json.dumps(options)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, **question: Any) -> None:
        """Sends a request."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """Waits for the answer.

        Raises:
            RuntimeError: the worker died instead; its traceback is on stderr.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with code {self._process.wait()}")
        return json.loads(line)

    def ask(self, **question: Any) -> Any:
        """Sends a request and waits for the answer."""
        self.tell(**question)
        return self.hear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()


def options() -> Any:
    """In a worker: its options. From now on logs go to stderr, since answers go to stdout."""
    configure_logging("error", "console")
    return json.loads(sys.argv[1])


async def questions() -> AsyncIterator[Any]:
    """In a worker: the requests. The event loop keeps running while it waits for the next."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield json.loads(line)


def answer(value: Any) -> None:
    """In a worker: answers a request."""
    print(json.dumps(value), flush=True)
