"""Programs of others that look at a log. Each is a function that says what does not fit, or nothing."""

import functools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from audit_svc.seal.folder import CHECKPOINT
from demo.processes import REPOSITORY

HERE = Path(__file__).parent
BIN = Path(os.environ.get("VERIFIERS_BIN", "/nowhere"))
"""Of an environment with what constraints.txt names."""
GO_SOURCES = Path("/usr/share/gocode")
ORIGIN = "ledger.example.com/verifiers"
LISTENING = re.compile(r"listening on (http://\S+)")
PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Log:
    """A sealed ledger, at rest."""

    database: Path
    folder: Path
    key: str
    kept: Path
    """A checkpoint of before the later rows, that an outsider has."""
    leaves: tuple[bytes, ...]

    @property
    def known(self) -> int:
        """The leaves that the outsider knows of."""
        return int(self.kept.read_text().split("\n")[1])


def go(log: Log) -> str:
    """golang.org/x/mod/sumdb: the checkpoint, all tiles, consistency, and the inclusion of some rows."""
    return run([built(), log.key, log.folder, log.kept], lines(log, range(0, len(log.leaves), 499)))


def aics_tlog(log: Log) -> str:
    """Its command line for consistency, its library for the tiles."""
    said: list[str | Path] = ["--log-key", log.key, "--tiles", log.folder]
    consistent = run([program("aics-tlog"), "verify-consistency", "--old-checkpoint", log.kept, *said])
    return consistent or other("tiles", log.key, log.folder)


def aics_witness(log: Log) -> str:
    """A witness that has cosigned what is kept."""
    with witness(log) as submit:
        cosigned = submit(log.kept)
        assert not cosigned, cosigned
        return submit(log.folder / CHECKPOINT)


def pymerkle(log: Log) -> str:
    """The roots that the rows have."""
    return other("roots", log.folder / CHECKPOINT, log.kept, given=lines(log, range(len(log.leaves))))


VERIFIERS = (go, aics_tlog, aics_witness, pymerkle)


def run(command: Sequence[str | Path], given: bytes = b"") -> str:
    ended = subprocess.run(command, input=given, capture_output=True, timeout=PATIENCE_SECONDS, check=False)
    return "" if ended.returncode == 0 else (ended.stderr or ended.stdout).decode() or "refused"


def other(*command: str | Path, given: bytes = b"") -> str:
    return run([program("python"), HERE / "others.py", *command], given)


def lines(log: Log, indices: Sequence[int]) -> bytes:
    return b"".join(b"%d %s\n" % (index, log.leaves[index]) for index in indices)


def program(name: str) -> Path:
    if not BIN.is_dir():
        missing("the verifiers' environment is not there: make test-verifiers makes it, with Python 3.12 or later")
    return BIN / name


@functools.cache
def built() -> Path:
    """The verifier in Go, built with what Debian packages."""
    if not shutil.which("go") or not (GO_SOURCES / "src/golang.org/x/mod/sumdb/tlog").is_dir():
        missing("Go's library is not there: apt-get install golang-go golang-golang-x-mod-dev")
    made = REPOSITORY / ".state" / "verifiers" / "check"
    env = {**os.environ, "GO111MODULE": "off", "GOFLAGS": "", "GOPATH": str(GO_SOURCES)}
    subprocess.run(["go", "build", "-o", made, HERE / "check.go"], env=env, check=True)
    return made


def missing(what: str) -> None:
    """A tool may be missing on a developer's machine, but not where everything is installed."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@contextmanager
def witness(log: Log) -> Iterator[Callable[[Path], str]]:
    """A new witness, as it is asked by its own client."""
    with serving_witness(log) as (url, key):
        yield lambda checkpoint: other("submit", url, key, checkpoint, log.folder)


@contextmanager
def serving_witness(log: Log) -> Iterator[tuple[str, str]]:
    """The URL and the key of a new witness, which knows the log's key and none of its checkpoints."""
    place = log.folder.parent / "witness"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    command: list[str | Path] = [program("aics-witness")]
    config: list[str | Path] = ["--config", place / "witness.json"]
    first = [*command, "init", *config, "--name", "witness.example.com/w1", "--listen", "127.0.0.1:0"]
    key = subprocess.run(first, capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(
        [*command, "add-log", *config, "--origin", ORIGIN, "--vkey", log.key], capture_output=True, check=True
    )
    said = place / "log"
    with said.open("wb") as file, subprocess.Popen([*command, "serve", *config], stderr=file) as serving:
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not (address := LISTENING.search(said.read_text())):
                assert serving.poll() is None, said.read_text()
                assert time.monotonic() < deadline, said.read_text()
                time.sleep(0.02)
            yield address[1], key
        finally:
            serving.terminate()
