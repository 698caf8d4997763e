"""How long each page of `audit-svc ui` takes on a large ledger: over HTTP, its pages and its ledger each a process.

Each page is asked for as a browser does that has none of it (`make bench-pages`).
"""

import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

from bench.data import RARE_TEXT, have
from bench.door import cpu_seconds
from bench.figures import Figure, Target, percentile, table
from bench.queries import Ledger, Sample
from demo.processes import REPOSITORY, environment
from service_kit.terminal.command import Argument, Option, echo
from service_kit.terminal.program import run

MAX_MS = 300
TOKEN = "token-of-the-benchmark"
WARM_UP = 2
PATIENCE_SECONDS = 60.0
"""No page is asked for again once it took as long in all: slow ones have their figure from fewer answers."""


@dataclass(frozen=True)
class Page:
    """One line of the table. Values in braces are a sample's: session, call, user."""

    name: str
    path: str
    asked: tuple[tuple[str, str], ...] = ()

    def address(self, sample: Sample) -> str:
        """Its path and query."""
        values = {"session": sample.session_id, "call": sample.call_id, "user": sample.user}
        asked = [(name, value.format(**values)) for name, value in self.asked]
        return f"{self.path}?{urlencode(asked)}" if asked else self.path


def _sessions(name: str, **asked: str) -> Page:
    return Page(f"sessions, {name}", "/sessions", tuple(asked.items()))


def _usage(name: str, **asked: str) -> Page:
    return Page(f"usage, {name}", "/usage", tuple(asked.items()))


def _search(name: str, text: str) -> Page:
    return Page(f"search, {name}", "/search", (("q", text),))


PAGES = [
    Page("start", "/"),
    Page("start, the live part", "/live"),
    _sessions("all"),
    _sessions("one engine", engine="openai"),
    _sessions("one model", model="gpt-x"),
    _sessions("one status", status="failed"),
    _sessions("a label of many", label="team=team-3"),
    _sessions("a label of few", label="user={user}"),
    _sessions("one person", principal="{user}"),
    _sessions("one agent", agent="codex"),
    _sessions("one tool", tool="bash"),
    _sessions("a rare tool", tool="deploy"),
    _sessions("a tool that is nowhere", tool="nothing"),
    _sessions("a rare outcome", outcome="timed_out"),
    _sessions("one person and a tool", principal="{user}", tool="bash"),
    _sessions("one agent, a month", agent="codex", since="30d"),
    _search("a session by its whole id", "{session}"),
    _search("a call by its whole id", "{call}"),
    _search("an id that is nowhere", "01980000-0000-7000-8000-000000000000"),
    _search("a part of an id that is nowhere", "0123456789abcdef"),
    _search("a text of one in 20,000", RARE_TEXT),
    _search("a text that is nowhere", "nowhere to be found"),
    Page("a session", "/session", (("id", "{session}"),)),
    _usage("as it opens"),
    _usage("by tool, 24 hours", since="24h"),
    _usage("by model, 90 days", by="model", since="90d"),
    _usage("by outcome, 30 days, against the 30 before", by="outcome", since="30d", compare="before"),
    _usage("by person, as it opens", by="principal"),
    _usage("by person, 30 days", by="principal", since="30d"),
    _usage("by agent, 90 days", by="agent", since="90d"),
    _usage("by a label of 20 values, 30 days", by="label", key="team", since="30d"),
    _usage("by a label of 2,000 values, 30 days", by="label", key="user", since="30d"),
    _usage("by a label of 20 values, 30 days, against the 30 before", by="label", key="team", since="30d",
           compare="before"),
    Page("approvals", "/approvals"),
    Page("health", "/health"),
]  # fmt: skip


@contextmanager
def showing(ledger: str) -> Iterator[tuple[http.client.HTTPConnection, int]]:
    """A connection to the pages of the ledger at an address, and their process."""
    with ExitStack() as stack:
        login = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "login"
        login.touch(0o600)
        login.write_text(TOKEN)
        command = [sys.executable, "-m", "audit_svc", "ui", "--listen", "127.0.0.1:0", "--target", ledger]
        process = stack.enter_context(
            subprocess.Popen(
                [*command, "--login-file", str(login)],
                env=environment({}),
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
        stack.callback(process.terminate)
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise RuntimeError("the pages did not start: is the extra ui installed?")
        connection = http.client.HTTPConnection(line.strip().removeprefix("http://").rstrip("/"), timeout=30)
        stack.callback(connection.close)
        yield connection, process.pid


def ask(connection: http.client.HTTPConnection, address: str) -> tuple[int, float]:
    """The status of a page, and the milliseconds that it took."""
    started = time.perf_counter()
    connection.request("GET", address, headers={"Authorization": f"Bearer {TOKEN}"})
    response = connection.getresponse()
    response.read()
    return response.status, (time.perf_counter() - started) * 1000


def measure(ledger: Ledger, times: int, only: str) -> Iterator[Figure]:
    """The p50 and the p99 of each page, and the mean of the CPU time that the ledger and the pages take for it, which
    other programs on the machine move less. only: a part of the names of those that are wanted.
    """
    with showing(ledger.service.address) as (connection, pages):

        def cpu() -> float:
            return cpu_seconds(pages) + cpu_seconds(ledger.service.pid)

        for page in PAGES:
            if only not in page.name:
                continue
            took, statuses, before = [], set(), 0.0
            for number in range(-WARM_UP, times):
                before = before if number > 0 else cpu()
                status, milliseconds = ask(connection, page.address(ledger.samples[number % len(ledger.samples)]))
                statuses.add(status)
                if number >= 0:
                    took.append(milliseconds)
                if took and sum(took) > PATIENCE_SECONDS * 1000:
                    break
            spent = (cpu() - before) * 1000 / len(took)
            failed = "".join(f", answered {status}" for status in sorted(statuses - {200, 303, 409}))
            name = f"{page.name}{failed}" + ("" if len(took) == times else f", {len(took)} answers")
            yield Figure(f"{name}, p50", "ms", percentile(took, 50))
            yield Figure(f"{name}, p99", "ms", percentile(took, 99), target=Target(max_ours=MAX_MS))
            yield Figure(f"{name}, CPU", "ms", spent)
            echo(f"{name}: {percentile(took, 50):.0f} ms, {percentile(took, 99):.0f} ms, CPU {spent:.0f} ms", err=True)


def main(
    folder: Annotated[Path, Argument(help="The folder of a ledger of bench.data, which is made where there is none.")],
    tool_calls: Annotated[int, Option(min=1, help="How many calls a ledger has that is made.")] = 10_000_000,
    times: Annotated[int, Option(min=1, help="How often each page is asked for.")] = 100,
    only: Annotated[str, Option(help="Only pages with this in their name.")] = "",
) -> None:
    """Measure the pages on a large ledger."""
    have(folder, tool_calls)
    ledger = Ledger(folder)
    try:
        echo(table(list(measure(ledger, times, only))))
    finally:
        ledger.service.terminate()


if __name__ == "__main__":
    run(main)
