"""A ledger with known figures, its pages served by the command itself, and a browser where there is one."""

import http.client
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from onrecord.audit.v1 import audit_pb2

from audit_svc.ledger.batch import read_batch
from audit_svc.sqlite.open import migrate
from audit_svc.sqlite.open.connection import open_for_writing
from audit_svc.sqlite.write.writer import Writer
from demo.processes import start_service
from tests.audit_svc.aged import ago
from tests.audit_svc.samples import NOW_MS, audit_row, cost_row, record_request, session_row

TOKEN = "sesame-of-the-tests"
HOSTILE = "<script>document.title='owned'</script>"

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str


@dataclass(frozen=True)
class Pages:
    """The pages of a ledger on a real port."""

    address: str
    database: Path

    def ask(self, path: str, method: str = "GET", body: str = "", **headers: str) -> Answer:
        """What the server answers, without following where it leads."""
        connection = http.client.HTTPConnection(self.address, timeout=20)
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read().decode())
        connection.close()
        return answer

    def read(self, path: str) -> Answer:
        """What somebody who has the token sees."""
        return self.ask(path, Authorization=f"Bearer {TOKEN}")


def request() -> audit_pb2.RecordRequest:
    """Two sessions: ada's with 6 reads, 3 commands of which one failed, and a fetch; bob's with one hostile call."""
    rows = [
        *[audit_row(session_id="s-ada", tool_name="read", created_at_ms=ago(2) + i, duration_ms=4) for i in range(6)],
        audit_row(session_id="s-ada", tool_name="bash", created_at_ms=ago(2) + 10, duration_ms=100),
        audit_row(session_id="s-ada", tool_name="bash", created_at_ms=ago(2) + 200, duration_ms=100),
        audit_row(session_id="s-ada", tool_name="bash", created_at_ms=ago(2) + 400, duration_ms=900, error="it broke"),
        audit_row(session_id="s-ada", tool_name="webfetch", created_at_ms=ago(1), duration_ms=700, http_status=404),
        audit_row(session_id="s-bob", tool_name=HOSTILE, created_at_ms=ago(3), args_summary=HOSTILE),
    ]
    costs = [
        cost_row(session_id="s-ada", model="large", created_at_ms=ago(2), cost_micros=1_500_000),
        cost_row(session_id="s-ada", model="small", created_at_ms=ago(1), cost_micros=250_000),
        cost_row(session_id="s-bob", model="small", created_at_ms=ago(3), cost_micros=500_000),
    ]
    sessions = [
        session_row(id=f"s-{user}", labels={"user": user}, created_at_ms=ago(3), updated_at_ms=ago(1))
        for user in ("ada", "bob")
    ]
    return record_request(tool_calls=rows, model_requests=costs, sessions=sessions)


def make_database(folder: Path) -> Path:
    """A ledger that holds request()."""
    path = folder / "audit.db"
    connection = open_for_writing(path)
    migrate.up(connection, migrate.load_migrations())
    with closing(Writer(connection, 50_000)) as writer:
        writer.record(read_batch(request(), NOW_MS)).result()
    return path


@contextmanager
def serving(folder: Path) -> Iterator[Pages]:
    """The pages of such a ledger in folder."""
    login = folder / "login"
    login.write_text(TOKEN)
    login.chmod(0o600)
    database = make_database(folder)
    options = ("--listen", "127.0.0.1:0", "--login-file", str(login))
    with start_service("audit_svc", {"AUDIT_DB": str(database)}, "ui", *options) as service:
        yield Pages(service.address, database)
        assert TOKEN not in service.stderr_text()
        assert "sql = " not in service.stderr_text()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """Pages that the tests of a module read."""
    with serving(tmp_path_factory.mktemp("ledger")) as pages:
        yield pages


@pytest.fixture
def browse(pages: Pages, tmp_path: Path) -> Callable[..., str]:
    """Opens a page in Chromium, which can reach nothing but this machine, and returns its DOM."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")

    def open_page(path: str, *options: str) -> str:
        join = "&" if "?" in path else "?"
        done = subprocess.run(
            [
                str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                f"--user-data-dir={tmp_path / 'browser'}", "--hide-scrollbars", *(options or ("--dump-dom",)),
                f"http://{pages.address}{path}{join}token={TOKEN}",
            ],
            capture_output=True, text=True, timeout=50, check=True,
        )  # fmt: skip
        return done.stdout

    return open_page
