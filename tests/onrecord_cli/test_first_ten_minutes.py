"""Plays docs/first-ten-minutes.md: each line that it has one type, and what it says that one sees.

`python -m tests.onrecord_cli.test_first_ten_minutes` writes the page anew with what is seen now.
"""

import re
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.person import ROOT, Home, Terminal, serve_model, wait_until_none

PAGE = ROOT / "docs" / "first-ten-minutes.md"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
OTHER_PORTS = re.compile(r"^the door has other ports .*?give\s+this\s+command\s+again\n", re.DOTALL | re.MULTILINE)
"""Where another test, or a developer, runs a door meanwhile."""
COLUMNS = 80
SEAL_SECONDS = 3


def typed() -> Iterator[tuple[str, list[str]]]:
    """The commands of the page, each with the lines that it shows."""
    for block in re.findall(r"^```console\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        for command in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            first, *shown = command.rstrip("\n").split("\n")
            yield first, shown


def alike(line: str) -> str:
    """A line without what each run has of its own: ids, numbers, ages, the widths of columns, where text is cut."""
    line = UUID.sub("ID", line.rstrip())
    line = re.sub(r"onrecord-demo-\w+", "DEMO", line)
    line = re.sub(r"onrecord\.invalid/[0-9a-f]+", "LOG", line)
    line = re.sub(r"\b[0-9a-f]{8,12}\b", "ID", line)
    line = re.sub(r"^now\b|^\d+ (s|min) ago", "AGE", line)
    line = re.sub(r"[\d,.]*\d", "N", line)
    line = re.sub(r"\bN (ms|s)\b", "N ms", line)
    line = re.sub(r"\{.*?(\}|…)", "ARGUMENTS", line)
    line = re.sub(r"there is no .*", "NOT THERE", line)
    return re.sub(r"\s+", " ", line).strip()


def in_any_order(lines: list[str]) -> list[str]:
    """Calls that run side by side end in any order, and the ledger lists them so."""
    key = {"  read": 1, "  bash": 1, "  webf": 1}
    groups = groupby(lines, key=lambda line: key.get(line[:6], 0))
    return [line for kind, group in groups for line in (sorted(group) if kind else group)]


def played(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """The commands of the page, each with the lines that it shows and those that it showed now."""
    up: Terminal | None = None
    with serve_model((ROOT / "tests/onrecord_cli/tides.toml").read_text("utf-8"), folder) as url:
        home = Home(folder, url)
        home.environ["PATH"] = f"{programs(folder)}:{home.environ['PATH']}"
        for command, shown in typed():
            if command.startswith("export PATH="):
                continue
            if up and command.startswith("onrecord calls --limit"):
                up.type("\x03")
                up.end()
                assert up.process.returncode == 0
                wait_until_none(home)
                up = None
            if command == "onrecord verify":
                time.sleep(SEAL_SECONDS)
            screen = Terminal(["bash", "-c", command.replace("make demo", "python -m demo")], home.environ)
            if command.startswith("onrecord up"):
                up = screen
                up.until("ends all")
                lines = up.lines()
            else:
                lines = screen.end()
                assert screen.process.returncode == 0, lines
            lines = OTHER_PORTS.sub("", "\n".join(lines)).split("\n")
            lines = [line.replace(str(folder), "/home/ada").rstrip() for line in lines]
            # What was asked last may not be sealed yet, on a busy machine.
            lines = [line for line in lines if not line.startswith("note   not sealed yet: query")]
            while lines and not lines[-1]:
                lines.pop()
            yield command, shown, lines
    assert up is None


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("bwrap"), reason="the page shows a machine with bubblewrap")
def test_each_line_of_the_page_shows_what_the_page_says(tmp_path):
    commands = 0
    for command, shown, lines in played(tmp_path):
        commands += 1
        assert max(map(len, [*lines, *shown, ""])) <= COLUMNS, lines
        found = in_any_order([alike(line) for line in lines])
        assert found == in_any_order([alike(line) for line in shown]), command
    assert commands >= 10


def programs(folder: Path) -> Path:
    """A folder with the commands that the page names, as this checkout has them."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name, module in (("onrecord", "-m onrecord_cli"), ("python", "")):
        (bin_folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n', "utf-8")
        (bin_folder / name).chmod(0o755)
    return bin_folder


def services(bin_folder: Path) -> None:
    """Puts the commands of the services beside those of programs()."""
    for name in ("gateway-svc", "audit-svc", "intake-svc"):
        module = name.replace("-", "_")
        (bin_folder / name).write_text(
            (bin_folder / "onrecord").read_text("utf-8").replace("onrecord_cli", module), "utf-8"
        )
        (bin_folder / name).chmod(0o755)


def write_anew() -> None:
    """Puts what is shown now into the page."""
    text = PAGE.read_text("utf-8")
    with TemporaryDirectory() as folder:
        for command, shown, lines in played(Path(folder)):
            before, after = ("\n".join([f"$ {command}", *part, ""]) for part in (shown, lines))
            text = text.replace(before, after, 1)
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    write_anew()
