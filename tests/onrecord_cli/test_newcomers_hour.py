"""A newcomer's first hour at a terminal of 80 columns: README's lines, every table, and the mistakes that one makes.

docs/first-ten-minutes.md is played by test_first_ten_minutes.py, README's lines for services of one's own by
test_readme.py.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from onrecord_cli.folder import find
from tests.onrecord_cli.test_first_ten_minutes import COLUMNS, programs, services
from tests.support.person import ROOT, Home, Terminal, serve_model, wait_until_none

pytestmark = pytest.mark.long

AT_A_TIME = 3


class Mistake(NamedTuple):
    """What a newcomer types, and what it says of it: what is wrong and what to do, on the lines of a screen."""

    typed: str
    exit_code: int
    said: str


BEFORE_THE_START = [
    # no model anywhere
    Mistake(
        'onrecord run "What time is it?"',
        2,
        "nothing runs on ~/.local/share/onrecord, and no model was found to start with. Do one of these",
    ),
    # a question before there is anything to ask about
    Mistake("onrecord verify", 2, "`onrecord up` makes it"),
    Mistake("onrecord check", 2, "`onrecord up` makes it"),
    # a folder's name mistyped, for `up` and for a service that is started by hand
    Mistake("onrecord up --workspace ~/tieds", 2, "~/tieds is not a folder: make it, or name another"),
    Mistake(
        "GATEWAY_OLLAMA_URL=http://127.0.0.1:9 GATEWAY_OLLAMA_MODEL=m GATEWAY_WORKSPACE=~/tieds gateway-svc serve",
        2,
        "~/tieds is not there: make it, or name another",
    ),
    # a variable's name mistyped
    Mistake(
        "GATEWAY_OLAMA_URL=http://127.0.0.1:9 gateway-svc serve",
        2,
        "or put `claude` on PATH GATEWAY_OLAMA_URL is not a setting: is GATEWAY_OLLAMA_URL meant?",
    ),
]
"""Six of the sixteen: nothing runs yet, and no model server is there."""
AFTERWARDS = [
    # a command's name mistyped, and an option's
    Mistake('onrecord runn "What time is it?"', 2, "there is no command 'runn': is run meant?"),
    Mistake("onrecord calls --tol bash", 2, "unrecognized option --tol: is --tool meant?"),
    # started twice
    Mistake("onrecord up", 1, "it runs already, as process"),
    # no task
    Mistake("onrecord run", 2, "PROMPT: is missing: give a task in quotes, or pipe one in"),
    # a time, an outcome, a group and an agent that are none
    Mistake("onrecord calls --since yesterday", 2, "--since: "),
    Mistake("onrecord calls --outcome succes", 2, "--outcome: 'succes' is not one of succeeded, failed"),
    Mistake("onrecord usage --by tol", 0, "no session of these has a label 'tol': is tool meant?"),
    Mistake("onrecord agents setup clude", 2, "invalid choice: 'clude' (choose from 'claude', 'codex'"),
    # a session that is not there, and a service that is not
    Mistake("onrecord show 1234abcd", 1, "the ledger has no session with this id: `onrecord sessions` lists those"),
    Mistake(
        "onrecord calls --target 127.0.0.1:9",
        1,
        "nobody listens on 127.0.0.1:9: is an audit service running there? `onrecord up` starts it",
    ),
]
"""Ten of the sixteen: the services run, and a session is recorded."""
TABLES = [
    "sessions",
    "calls",
    "calls --outcome failed",
    "requests",
    "errors",
    "usage",
    "usage --by tool",
    "usage --by day",
    "usage --by session",
    "usage --by engine,model,tool,title",
    "usage --by day,session,engine,model,tool",
    "producers",
    "controls",
    "queries",
    "engines",
    "approvals",
    "stops",
    "check",
    "show @last",
    "sessions --tool bash",
]
OF_SERVICES = [
    "gateway-svc tools",
    "gateway-svc sessions",
    "gateway-svc rules check ~/rules.toml",
    "gateway-svc rules try ~/rules.toml --since 1h",
    "audit-svc migrate status",
]
RULES = """
[[rules]]
name = "no-force-push-to-a-branch-that-others-build-on"
tools = ["bash"]
condition = 'args.command.contains("git push") && (args.command.contains("--force") || args.command.contains("-f "))'
verdict = "deny"
reason = "Others build on what you would overwrite."
"""
CUT = re.compile(r"(\b[0-9a-f]{8}[0-9a-f-]*|\$[\d.,]*|\b20\d\d-[\d-]*)…")
"""An id, money or a day that is not whole."""


def lines_of_readme() -> list[str]:
    """What README has one type to `onrecord`, less the services themselves."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("onrecord ")]
    return [line for line in lines if not line.startswith("onrecord up")]


class Newcomer:
    """Someone at a terminal in a home of their own."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.wrong: list[str] = []
        bin_folder = programs(home.folder)
        services(bin_folder)
        home.environ["PATH"] = f"{bin_folder}:{home.environ['PATH']}"

    def terminal(self, typed: str) -> Terminal:
        return Terminal(["bash", "-c", typed], self.home.environ)

    def type(self, typed: str) -> tuple[int, list[str]]:
        """What a line shows, and its exit code."""
        screen = self.terminal(typed)
        return self.end(typed, screen)

    def end(self, typed: str, screen: Terminal) -> tuple[int, list[str]]:
        """Waits for the end of what was typed."""
        lines = [line.rstrip() for line in screen.end()]
        code = screen.process.returncode
        shown = [line.replace(str(self.home.folder), "~") for line in lines]
        for line in shown:
            is_log = re.match(r"20\d\d-\d\d-\d\dT", line)
            if (len(line) > COLUMNS and not is_log) or "Traceback" in line:
                self.wrong.append(f"{typed}: {line!r} of {len(line)}")
        return code, shown

    def make(self, mistake: Mistake) -> None:
        code, lines = self.type(mistake.typed)
        shown = " ".join(" ".join(lines).split())
        if (code, mistake.said in shown) != (mistake.exit_code, True):
            self.wrong.append(f"{mistake.typed}: exit code {code}, {lines}")

    def read(self, typed: str) -> None:
        code, lines = self.type(typed)
        if code or not any(lines):
            self.wrong.append(f"{typed}: exit code {code}, {lines}")
        # a list's names of columns are whole, and so is what nobody may cut
        if cut := [line for at, line in enumerate(lines) if ("…" in line and not at) or CUT.search(line)]:
            self.wrong.append(f"{typed}: {cut}")


def side_by_side(act: object, given: Sequence[object]) -> None:
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(act, given))  # type: ignore[arg-type]


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    with serve_model((ROOT / "tests/onrecord_cli/tides.toml").read_text("utf-8"), tmp_path) as url:
        yield Newcomer(Home(tmp_path, url))


@pytest.mark.skipif(not shutil.which("bwrap"), reason="the agent runs commands in bubblewrap")
def test_an_hour(newcomer: Newcomer):
    home = newcomer.home
    assert len(BEFORE_THE_START) + len(AFTERWARDS) == 16
    model, home.environ["OLLAMA_HOST"] = home.environ["OLLAMA_HOST"], "127.0.0.1:9"
    shutil.copytree(ROOT / "demo/workspace", home.folder / "tides")
    side_by_side(newcomer.make, BEFORE_THE_START)
    home.environ["OLLAMA_HOST"] = model

    up = newcomer.terminal("GATEWAY_MAX_STEP=9 onrecord up --workspace ~/tides")
    up.until("GATEWAY_MAX_STEP is not a setting: is GATEWAY_MAX_STEPS meant?")
    readme = lines_of_readme()
    assert len(readme) >= 8
    first = next(line for line in readme if line.startswith("onrecord run"))
    newcomer.read(first.replace("onrecord run", f"onrecord run --title {'t' * 40}"))
    (tail,) = (line for line in readme if line.startswith("onrecord tail"))
    follower = newcomer.terminal(tail)  # it shows what comes from then on
    side_by_side(newcomer.make, AFTERWARDS)
    side_by_side(newcomer.read, [line for line in readme if line != tail])
    side_by_side(newcomer.read, [f"onrecord {table}" for table in TABLES])
    (home.folder / "rules.toml").write_text(RULES, "utf-8")
    running = find(home.state)
    assert running
    asked = (
        f"export AUDIT_DB={home.state}/audit/audit.db AUDIT_LISTEN={running.ledger} GATEWAY_LISTEN={running.gateway}"
        f" GATEWAY_AUDIT_TARGET={running.ledger} GATEWAY_OLLAMA_URL=http://127.0.0.1:9 GATEWAY_OLLAMA_MODEL=m; "
    )
    side_by_side(newcomer.read, [asked + typed for typed in OF_SERVICES])
    follower.until("bash")
    follower.type("\x03")
    newcomer.end(tail, follower)
    up.type("\x03")
    assert max(map(len, up.end())) <= COLUMNS
    wait_until_none(home)
    assert not newcomer.wrong, "\n".join(newcomer.wrong)
