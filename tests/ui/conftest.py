"""A ledger with known figures behind its service, its pages served by the command itself, and a browser."""

import http.client
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import grpc
import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from demo.processes import REPOSITORY, Service, environment, start_service
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, record_request, session_row
from tests.audit_svc.stubs import LedgerStub

TOKEN = "sesame-of-the-tests"
HOSTILE = "<script>document.title='owned'</script>"
MINUTE_MS = 60_000
WINDOWS = [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", action="store_true", help="write the pictures of docs/pictures")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str


@dataclass(frozen=True)
class Pages:
    """Pages on a real port."""

    address: str

    def ask(self, path: str, method: str = "GET", body: str = "", **headers: str) -> Answer:
        """What the server answers, without following where it leads."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        connection.request(method, path, body or None, {name.replace("_", "-"): text for name, text in headers.items()})
        response = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read().decode())
        connection.close()
        return answer

    def read(self, path: str) -> Answer:
        """What somebody who has the token sees."""
        return self.ask(path, Authorization=f"Bearer {TOKEN}")

    def send(self, page: str, path: str, **fields: str) -> Answer:
        """A form of page, sent as a browser does that has the cookie."""
        csrf = re.search(r'name="csrf" value="(\w+)"', self.read(page).text)
        body = urlencode({"csrf": csrf[1] if csrf else "", **fields})
        return self.ask(path, "POST", body, Cookie=f"onrecord_ui={TOKEN}", Sec_Fetch_Site="same-origin")


def request() -> audit_pb2.RecordRequest:
    """Ada's session of two turns, in which much happens; Bob's with hostile names; another agent's without a row."""
    began = NOW_MS - 30 * MINUTE_MS
    ada = {"session_id": "s-ada", "principal": "ada", "agent": {"name": "claude-code", "version": "2.1"}}
    by_bob = {"verdict": common_pb2.VERDICT_DENIED, "source": common_pb2.DECISION_SOURCE_PERSON, "decided_by": "bob",
              "decided_at_ms": began, "waited_ms": 4000, "reason": "not on a Friday"}  # fmt: skip
    calls = [
        audit_row(**ada, id="c-read", turn_id="t-1", tool_name="read", created_at_ms=began + 2000, duration_ms=4,
                  exit_code=None, args_summary='{"path": "README.md"}'),
        audit_row(**ada, id="c-bash", turn_id="t-1", created_at_ms=began + 2500, duration_ms=900, exit_code=2,
                  args_summary='{"command": "make test"}'),
        audit_row(**ada, id="c-rm", turn_id="t-1", created_at_ms=began + 6000, duration_ms=0, exit_code=None,
                  args_summary='{"command": "rm -r build"}', outcome=common_pb2.OUTCOME_DENIED, decision=by_bob,
                  error="a person refused it"),
        audit_row(**ada, id="c-web", turn_id="t-2", tool_name="webfetch", created_at_ms=began + 60_000,
                  duration_ms=700, exit_code=None, http_status=404),
        audit_row(**ada, id="c-cut", turn_id="t-2", created_at_ms=began + 61_000, duration_ms=0, exit_code=None,
                  outcome=common_pb2.OUTCOME_INTERRUPTED, error="the gateway ended while it ran"),
        audit_row(session_id="s-bob", principal=HOSTILE, tool_name=HOSTILE, args_summary=HOSTILE, error=HOSTILE,
                  outcome=common_pb2.OUTCOME_FAILED, turn_id=HOSTILE, model=HOSTILE, created_at_ms=began),
        audit_row(session_id="s-other", engine="claude", created_at_ms=began + 5000,
                  source=common_pb2.SOURCE_HOOK, agent={"name": "other"}),
    ]  # fmt: skip
    costs = [
        cost_row(**ada, turn_id="t-1", model="large", created_at_ms=began, cost_micros=1_500_000, duration_ms=1900),
        cost_row(**ada, turn_id="t-1", model="large", created_at_ms=began + 3500, cost_micros=250_000),
        cost_row(**ada, turn_id="t-2", model="small", created_at_ms=began + 59_000, cost_micros=None),
        cost_row(session_id="s-bob", model=HOSTILE, created_at_ms=began, cost_micros=500_000, error=HOSTILE),
    ]
    sessions = [
        session_row(id="s-ada", labels={"user": "ada", "repository": "shop"}, created_at_ms=began, turns=2,
                    tool_calls=5, updated_at_ms=began + 62_000,
                    usage={"requests": 3, "input_tokens": 300, "output_tokens": 60, "known_cost_micros": 1_750_000,
                           "unpriced_requests": 1}),
        session_row(id="s-bob", labels={HOSTILE: HOSTILE}, created_at_ms=began - 1000, updated_at_ms=began,
                    engine=HOSTILE, status=common_pb2.SESSION_STATUS_FAILED),
    ]  # fmt: skip
    stop = audit_pb2.ControlRow(id="k-1", kind=audit_pb2.CONTROL_KIND_STOP, principal="ops", scope="engine=ollama",
                                reason=HOSTILE, at_ms=began + 30_000, stop_id="stop-1")  # fmt: skip
    numbers = [
        audit_pb2.SessionNumbers(session_id="s-other", stream="claude event.sequence", first=first, last=last)
        for first, last in ((1, 3), (6, 8))
    ]
    return record_request(
        tool_calls=calls, model_requests=costs, sessions=sessions, controls=[stop], session_numbers=numbers
    )


def record(address: str, *requests: audit_pb2.RecordRequest) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = LedgerStub(channel)
        for one in requests:
            assert not stub.RecordBatch(one, wait_for_ready=True, timeout=30).rejections


@contextmanager
def showing(folder: Path, ledger: str, *options: str, token: str = TOKEN) -> Iterator[Pages]:
    """The pages of the ledger at an address, by the command."""
    login = folder / "login"
    login.write_text(token)
    login.chmod(0o600)
    command = [sys.executable, "-m", "audit_svc", "ui", "--listen", "127.0.0.1:0", "--target", ledger]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [*command, "--login-file", str(login), *options], env=environment({}), cwd=REPOSITORY,
            stdout=subprocess.PIPE, stderr=log, text=True,
        ) as process,
    ):  # fmt: skip
        try:
            assert process.stdout is not None
            printed = re.match(r"http://([^/]+)/", process.stdout.readline())
            assert printed is not None, (folder / "log").read_text()
            yield Pages(printed[1])
        finally:
            process.terminate()
            assert process.wait(timeout=60) == 0
    told = (folder / "log").read_text()
    assert token not in told
    assert "Traceback" not in told


@pytest.fixture(scope="session")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A ledger that holds request(). Tests add nothing to it."""
    env = {
        "AUDIT_DB": str(tmp_path_factory.mktemp("ledger") / "audit.db"),
        "AUDIT_LISTEN": "127.0.0.1:0",
        "AUDIT_SEAL_SECONDS": "0.5",
    }
    with start_service("audit_svc", env, "serve") as service:
        record(service.address, request())
        yield service


@pytest.fixture(scope="session")
def pages(ledger: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Its pages."""
    with showing(tmp_path_factory.mktemp("pages"), ledger.address) as pages:
        yield pages


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser that can reach nothing but this machine."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
                  "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )  # fmt: skip
        yield browser
        browser.close()


class Browser:
    """A window on pages, let in, which notes what its console says and what it asks of other hosts."""

    def __init__(self, chromium: Any, pages: Pages, width: int = 1280, scheme: str = "light") -> None:
        self.pages = pages
        self.said: list[str] = []
        self.elsewhere: list[str] = []
        self.context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", self._note)
        self.page.goto(f"http://{pages.address}/about?token={TOKEN}")

    def open(self, path: str) -> Any:
        """The page, loaded."""
        self.page.goto(f"http://{self.pages.address}{path}")
        return self.page

    def _note(self, request: Any) -> None:
        if not request.url.startswith(f"http://{self.pages.address}/"):
            self.elsewhere.append(request.url)


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, from npm."""
    version = "4.14.1"
    if shutil.which("npm") is None:
        pytest.skip("no npm is installed: apt-get install npm")
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run(["npm", "pack", "--silent", f"axe-core@{version}"], cwd=folder, check=True, timeout=60)
    shutil.unpack_archive(folder / f"axe-core-{version}.tgz", folder)
    return (folder / "package" / "axe.min.js").read_text()


def findings(page: Any, axe: str) -> list[str]:
    """What axe finds wrong with a page."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then(r => JSON.stringify(r.violations))")
    return [
        f"{one['id']}: {node['html'][:200]} {node['failureSummary']}"
        for one in json.loads(found)
        for node in one["nodes"]
    ]
