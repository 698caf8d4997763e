"""A person at a terminal: a home of their own, a model, and the commands of `onrecord` as processes."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.command_line import sized

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 120


class Home:
    """A person's environment: a folder, and a model server."""

    def __init__(self, folder: Path, model: str) -> None:
        self.folder, self.state = folder, folder / ".local/share/onrecord"
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        paths = [str(ROOT), str(ROOT / "protos"), str(ROOT / "clients/python/lib")]
        self.environ = {
            **kept,
            "PYTHONPATH": os.pathsep.join(paths),
            "HOME": str(folder),
            "OLLAMA_HOST": model.removeprefix("http://"),
            "TERM": "xterm",
        }

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "onrecord_cli", *words]

    def run(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """What a command answers where no terminal is."""
        return subprocess.run(
            self.command(*words),
            env=self.environ,
            input=given,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )

    def terminal(self, *words: str) -> "Terminal":
        return Terminal(self.command(*words), self.environ)


class Terminal:
    """A command on a terminal of 80 columns and 24 lines."""

    def __init__(self, words: Sequence[str], environ: dict[str, str]) -> None:
        self._leader, follower = pty.openpty()
        sized(follower)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *words],  # preexec_fn would fork, which breaks the gRPC of this process
            env=environ,
            cwd=ROOT,
            stdin=follower,
            stdout=follower,
            stderr=follower,
        )
        os.close(follower)
        self.text = ""

    def until(self, wanted: str, begin: int = 0) -> None:
        """Reads until the screen has shown wanted behind begin."""
        end = time.monotonic() + WAIT_SECONDS
        while wanted not in self.text[begin:]:
            assert time.monotonic() < end, self.text
            assert self._read(), self.text

    def type(self, keys: str) -> None:
        os.write(self._leader, keys.encode())

    def end(self) -> list[str]:
        """Waits for the command's end; the lines that were shown."""
        while self._read():
            pass
        self.process.wait(WAIT_SECONDS)
        os.close(self._leader)
        return self.lines()

    def lines(self) -> list[str]:
        """The lines that were shown so far, without styles."""
        shown = re.sub(r"\x1b\[\d*m", "", self.text).replace("\r\n", "\n")
        return [line.rsplit("\r\x1b[K")[-1].rsplit("\r")[-1] for line in shown.split("\n")]

    def _read(self) -> bool:
        if select.select([self._leader], [], [], 1)[0]:
            try:
                read = os.read(self._leader, 65536)
            except OSError:  # nobody has it open any more
                return False
            self.text += read.decode(errors="replace")
        return True


@contextmanager
def serve_model(script: str, folder: Path) -> Iterator[str]:
    """A scripted model's URL."""
    (folder / "script.toml").write_text(script)
    words = [sys.executable, "-m", "demo.model_server", "--script", str(folder / "script.toml"), "--port", "0"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.kill()


def services_of(home: Home) -> list[int]:
    """The processes of a person."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if f"HOME={home.folder}\0".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_until_none(home: Home) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while services_of(home):
        assert time.monotonic() < end, services_of(home)
        time.sleep(0.1)
