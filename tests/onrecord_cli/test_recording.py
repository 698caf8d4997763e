"""The recording of README: real commands on a terminal of 80 columns, against a scripted model.

`python -m tests.onrecord_cli.test_recording` makes it anew: docs/pictures/terminal.cast in asciinema's format (version
2), and of that terminal.svg, by svg-term-cli from npm.
"""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.onrecord_cli.test_first_ten_minutes import UUID, alike, in_any_order, programs
from tests.support.person import ROOT, Home, Terminal, serve_model, wait_until_none

CAST, SVG = (ROOT / f"docs/pictures/terminal.{kind}" for kind in ("cast", "svg"))
COMMANDS = (
    'onrecord run "When is the next high water?" --title tides',
    "onrecord show @last",
    "onrecord usage --by model,tool",
)
COLUMNS, LINES = 80, 36
TYPING_SECONDS, READING_SECONDS = 0.04, 2.5
SVG_TERM = "svg-term-cli@2.1.1"
MOST_BYTES = 150_000

Event = tuple[float, str, str]
"""Seconds from the begin, "o" for output, and what was put out."""


class Recorder:
    """The events of commands, one after the other, each typed at a prompt."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._at = 0.5

    def play(self, command: str, home: Home) -> None:
        """Runs a command, and records what it puts out and when."""
        self._add("$ ", 0)
        for letter in command:
            self._add(letter, TYPING_SECONDS)
        self._add("\r\n", 0.3)
        screen = Terminal(["bash", "-c", command], home.environ)
        began, shown = time.monotonic(), 0
        at = self._at
        while True:
            goes_on = screen._read()
            if len(screen.text) > shown:
                self._at = at + time.monotonic() - began
                self._add(screen.text[shown:].replace(str(home.folder), "/home/ada"), 0)
                shown = len(screen.text)
            if not goes_on:
                break
        screen.end()
        assert screen.process.returncode == 0, screen.text
        self._at += READING_SECONDS

    def _add(self, text: str, after_seconds: float) -> None:
        self._at += after_seconds
        self.events.append((round(self._at, 3), "o", text))

    def written(self) -> str:
        """The recording."""
        head = {"version": 2, "width": COLUMNS, "height": LINES, "title": "onrecord", "env": {"TERM": "xterm-256color"}}
        # The last screen stays for a while before it begins anew.
        events = [*self.events, (round(self._at + READING_SECONDS, 3), "o", "")]
        return "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in (head, *events))


def recorded(folder: Path) -> str:
    """A recording made now."""
    recorder = Recorder()
    with serve_model((ROOT / "tests/onrecord_cli/tides.toml").read_text(encoding="utf-8"), folder) as url:
        home = Home(folder, url)
        home.environ["PATH"] = f"{programs(folder)}:{home.environ['PATH']}"
        shutil.copytree(ROOT / "demo/workspace", folder / "tides")
        up = Terminal(["bash", "-c", f"onrecord up --workspace {folder}/tides"], home.environ)
        up.until("ends all")
        for command in COMMANDS:
            recorder.play(command, home)
        up.type("\x03")
        up.end()
        wait_until_none(home)
    return recorder.written()


def lines_of(cast: str) -> list[str]:
    """What the screen has shown at the end, without styles, with the commands."""
    text = "".join(json.loads(line)[2] for line in cast.splitlines()[1:])
    text = re.sub(r"\x1b\[\d*m", "", text).replace("\r\n", "\n")
    return [line.rsplit("\r\x1b[K")[-1].rsplit("\r")[-1].rstrip() for line in text.split("\n")]


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{4,}", text))


def test_the_recording_and_its_picture_are_of_the_same_run():
    head, *events = map(json.loads, CAST.read_text(encoding="utf-8").splitlines())
    assert (head["version"], head["width"], head["height"]) == (2, COLUMNS, LINES)
    times = [at for at, _, _ in events]
    assert times == sorted(times)
    lines = lines_of(CAST.read_text(encoding="utf-8"))
    assert max(map(len, lines)) <= COLUMNS
    assert [line[2:] for line in lines if line.startswith("$ ")] == list(COMMANDS)
    picture = SVG.read_text(encoding="utf-8")
    assert len(picture) <= MOST_BYTES
    assert "<script" not in picture
    assert "http" not in picture.replace("http://www.w3.org/", "")
    shown = words(re.sub(r"<[^>]*>", " ", picture))
    assert words(" ".join(lines)) <= shown
    assert "/tmp/" not in "".join(lines)


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("bwrap"), reason="the recording is of a machine with bubblewrap")
def test_the_recording_shows_what_the_commands_say_now(tmp_path):
    now, then = (
        in_any_order([alike(UUID.sub("ID", line)) for line in lines_of(cast)])
        for cast in (recorded(tmp_path), CAST.read_text(encoding="utf-8"))
    )
    assert now == then


def write_anew() -> None:
    with TemporaryDirectory() as folder:
        CAST.write_text(recorded(Path(folder)))
    command = ["npx", "--yes", SVG_TERM, "--in", str(CAST), "--out", str(SVG), "--window", "--no-cursor"]
    subprocess.run([*command, "--width", str(COLUMNS), "--height", str(LINES)], check=True)


if __name__ == "__main__":
    write_anew()
