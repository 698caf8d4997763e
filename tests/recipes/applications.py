"""Runs the recipes of docs/client.md as they are written there, with the real programs."""

import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from demo.processes import REPOSITORY, Service
from recording.kept.folder import FOLDER as KEPT

BIN = Path(sys.prefix, "recipes", "bin")
"""The environment of the applications: their servers, and the wheel of the client."""
SECONDS = 180.0
"""How long anything may take on a busy machine."""

_PAGE = (REPOSITORY / "docs" / "client.md").read_text().partition("\n## Recipes\n")[2]
_MARK = "ONRECORD_RECIPE"
T = TypeVar("T")


def blocks(recipe: str, language: str) -> list[str]:
    """The blocks of code below a recipe's heading."""
    assert f"\n### {recipe}\n" in _PAGE
    section = _PAGE.partition(f"\n### {recipe}\n")[2].partition("\n### ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def commands(recipe: str) -> list[str]:
    """The lines with which it is started."""
    return [line for block in blocks(recipe, "sh") for line in block.splitlines()]


def until(look: Callable[[], T | None], told: Callable[[], object] = lambda: "") -> T:
    """What look returns, once it is true."""
    by = time.monotonic() + SECONDS
    while not (found := look()):
        assert time.monotonic() < by, told()
        time.sleep(0.02)
    return found


@dataclass
class Recorded:
    """The calls that the application was told are recorded, by the process that made each."""

    by_process: dict[int, list[str]] = field(default_factory=dict)

    def add(self, call: str, process: int | str) -> None:
        """One call's id."""
        self.by_process.setdefault(int(process), []).append(call)

    @property
    def ids(self) -> list[str]:
        """Of all processes."""
        return [call for calls in self.by_process.values() for call in calls]


class Application:
    """A recipe in a folder of its own, and the ledger to which it belongs."""

    def __init__(self, folder: Path, audit: Service, db: Path, recipe: str) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.audit = audit
        self._db = db
        self._earlier = {
            name for (name,) in self._query("SELECT id FROM producers UNION ALL SELECT id FROM tool_call_log")
        }
        for block in blocks(recipe, "python"):
            if named := re.match(r"# (\w+\.py)\n", block):
                (folder / named[1]).write_text(self.placed(block))

    def placed(self, code: str) -> str:
        """The code with this test's folder and address, and the patience that a busy machine needs."""
        code = re.sub(r"flush\(\d+\)", f"flush({SECONDS})", code)
        for written in ("~/.local/state/my-app", "/tmp/my-app"):
            code = code.replace(f'"{written}"', repr(str(self.state)))
        return code.replace("127.0.0.1:50052", self.audit.address)

    def environment(self) -> dict[str, str]:
        """What the program is given: nothing of the tests' own."""
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        return {**kept, "PATH": path, _MARK: str(self.folder)}

    @contextmanager
    def running(self, command: str, *more: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Starts a line of the recipe, and leaves no process behind."""
        first, *rest = shlex.split(command)
        with (self.folder / "stdout").open("ab") as out, (self.folder / "stderr").open("ab") as err:
            process = subprocess.Popen(
                [BIN / first, *rest, *more],
                cwd=self.folder,
                env=self.environment(),
                stdin=options.pop("stdin", subprocess.DEVNULL),
                stdout=options.pop("stdout", out),
                stderr=err,
                **options,
            )
        try:
            yield process
        finally:
            if process.stdin:
                process.stdin.close()
            if process.stdout:
                process.stdout.close()
            if process.poll() is None:
                process.kill()
            process.wait()

    def run(self, command: str, *more: str) -> str:
        """Runs a line of the recipe to its end, and returns what it printed."""
        with self.running(command, *more) as process:
            assert process.wait(SECONDS) == 0, self.stderr() + self.stdout()
        return self.stdout()

    def stderr(self) -> str:
        """What the program said there, and the log of the one that sends."""
        logs = [self.folder / "stderr", self.state / "spool" / "sender.log"]
        return "\n".join(path.read_text()[-4_000:] for path in logs if path.exists())

    def stdout(self) -> str:
        """What the program said there."""
        return (self.folder / "stdout").read_text()

    def processes(self) -> list[int]:
        """All that came of it and are there, the sender and orphans too."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                told = (path / "environ").read_bytes()
                if f"{_MARK}={self.folder}\0".encode() in told:
                    found.append(int(path.name))
        return found

    def signal_all(self, number: int) -> None:
        """Every process of the application, and the one that sends."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def __enter__(self) -> "Application":
        return self

    def __exit__(self, *_: object) -> None:
        self.signal_all(signal.SIGKILL)

    def rows(self) -> dict[str, tuple[str, str | None]]:
        """The outcome and the error of each call that came to the ledger since the application began, by its id."""
        rows = self._query("SELECT id, outcome, error FROM tool_call_log")
        assert len({row[0] for row in rows}) == len(rows)
        return {call: (outcome, error) for call, outcome, error in rows if call not in self._earlier}

    def outcomes_once_settled(self) -> Counter[str]:
        """How many calls of each outcome are in the ledger, once no process is left."""
        until(lambda: not self.processes(), lambda: (self.processes(), self.stderr()))
        return Counter(outcome for outcome, _ in self.rows().values())

    def settled(self, recorded: Recorded, **others: int) -> None:
        """All calls are in the ledger, each once and by its own process, others by their outcome; nobody is left."""
        outcomes = self.outcomes_once_settled()
        rows = self.rows()
        assert {call for call, (outcome, _) in rows.items() if outcome == "succeeded"} == set(recorded.ids)
        assert outcomes == Counter(succeeded=len(recorded.ids), **others), (outcomes, self.stderr())
        # Each process has a folder of its own, in which each of its calls has two records: an intent and a row.
        producers = self._query("SELECT id, highest_sequence FROM producers")
        records = sorted(last for name, last in producers if name not in self._earlier)
        if others:
            assert sum(records) == 2 * len(rows)
        else:
            assert records == sorted(2 * len(calls) for calls in recorded.by_process.values())
        assert self._query("SELECT * FROM producer_gaps") == []
        left = [path.name for path in (self.state / "spool").iterdir() if path.is_dir() and path.name != KEPT]
        assert left == []

    def _query(self, sql: str) -> list[Any]:
        connection = sqlite3.connect(f"file:{self._db}?mode=ro", uri=True)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()
