"""`onrecord` as a person uses it: real processes, a scripted model, a terminal of 80 columns."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from onrecord_cli.folder import find
from tests.support.command_line import sized

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 120
SCRIPT = """
[[steps]]
text = "I will look. "
tool_calls = [
  { name = "read", arguments = { path = "none.txt" } },
  { name = "bash", arguments = { command = "sleep 60" } },
]
[[steps]]
text = "Nothing is here."
"""
QUICK = SCRIPT.replace("sleep 60", "exit 2")


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
            words,
            env=environ,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
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
        """Waits for the command's end; the lines that were shown, without styles."""
        while self._read():
            pass
        self.process.wait(WAIT_SECONDS)
        os.close(self._leader)
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


def serve_model(script: str, folder: Path) -> Iterator[str]:
    (folder / "script.toml").write_text(script)
    words = [sys.executable, "-m", "demo.model_server", "--script", str(folder / "script.toml"), "--port", "0"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield server.stdout.readline().split()[-1]
        server.kill()


@pytest.fixture
def home(tmp_path) -> Iterator[Home]:
    for url in serve_model(QUICK, tmp_path):
        yield Home(tmp_path, url)


@pytest.fixture
def slow_home(tmp_path) -> Iterator[Home]:
    for url in serve_model(SCRIPT, tmp_path):
        yield Home(tmp_path, url)


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


@pytest.mark.long
def test_from_nothing_to_a_record_that_can_be_asked(home):
    up = home.terminal("up")
    up.until("ready")
    running = find(home.state)
    assert running
    assert running.pid == up.process.pid

    ran = home.run("run", "-", "--title", "first look", given="What is here?\n")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "I will look. \nNothing is here.\n"
    assert "bash: exit 2 · " in ran.stderr

    again = home.terminal("up")
    assert any("it runs already" in line for line in again.end())
    assert again.process.returncode == 1

    went_on = home.run("run", "--continue", "And now?")
    assert went_on.returncode == 0, went_on.stderr
    (session,) = [json.loads(line) for line in home.run("sessions", "--json").stdout.splitlines()]
    assert (session["turns"], session["labels"]) == (2, {"title": "first look"})
    both = home.run("run", "hi", "--continue", "--title", "x")
    assert (both.returncode, "--continue: --title" in both.stderr) == (2, True)

    chat = home.terminal("chat")
    chat.until("> ")
    chat.type("hello\r")
    chat.until("tokens in")
    chat.until("> ", chat.text.index("tokens in"))
    chat.type("\x04")
    chat.end()
    assert chat.process.returncode == 0

    short = session["id"][-8:]
    for words in (["calls"], ["sessions"], ["usage"], ["errors"], ["show", short], ["calls", "--session", short]):
        screen = home.terminal(*words)
        lines = screen.end()
        assert screen.process.returncode == 0, lines
        assert short in "".join(lines) or words[0] in ("usage", "errors")
        if words[0] != "show":
            assert max(map(len, lines)) <= 80, lines
    shown = home.run("show", "@last").stdout.splitlines()[0]
    assert shown.startswith("session ")
    assert shown != f"session {session['id']}"

    up.type("\x03")
    lines = up.end()
    assert up.process.returncode == 0, lines
    assert [line.split()[0] for line in lines if line][:5] == ["ledger", "gateway", "tools", "door", "ready"]
    assert max(map(len, lines)) <= 80, lines
    wait_until_none(home)
    assert find(home.state) is None
    assert home.run("calls", "--json").stdout.count("\n") == 6, "the ledger's file is asked where nothing runs"


@pytest.mark.long
def test_a_run_starts_what_it_needs_and_ctrl_c_says_what_it_cost(slow_home):
    ran = slow_home.terminal("run", "What is here?")
    ran.until("▸ bash")
    ran.until("bash · 1 s")
    ran.type("\x03")
    lines = ran.end()
    assert ran.process.returncode == 130, lines
    assert any(line.startswith("cancelling bash") for line in lines), lines
    assert any(line.startswith("cancelled in ") and "1 model request · 2 tool calls" in line for line in lines)
    assert any("tokens in" in line and "$0.000000" in line for line in lines)
    assert max(map(len, lines)) <= 80, lines
    wait_until_none(slow_home)
    outcomes = {json.loads(line)["outcome"] for line in slow_home.run("calls", "--json").stdout.splitlines()}
    assert "cancelled" in outcomes


@pytest.mark.long
def test_whoever_kills_it_leaves_no_service_behind(home):
    up = home.terminal("up", "--no-gateway")
    up.until("ready")
    assert len(services_of(home)) >= 2
    asked = home.run("run", "hi")
    assert (asked.returncode, "has no gateway" in asked.stderr) == (1, True)
    up.process.send_signal(signal.SIGKILL)
    up.process.wait()
    wait_until_none(home)
    assert find(home.state) is None
    assert "nothing matches" in home.run("calls").stderr
