"""Pages of a ledger that nobody may write, or that nobody has open: they leave it as it is, and follow a service."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from demo.processes import REPOSITORY, environment
from tests.audit_svc.terminal.test_media import (
    FOLDED,
    IN_THE_WAL,
    NOBODY,
    area,
    ledgers,
    place,
    record,
    serve,
    state_of,
)
from tests.ui.conftest import Pages

pytestmark = pytest.mark.ui
__all__ = ["area", "ledgers"]  # fixtures

COUNT = "/ledger.json?_shape=array&sql=select+count(*)+as+n+from+tool_call_log"


@contextmanager
def pages_of(database: Path, user: int, scratch: Path) -> Iterator[tuple[Pages, str]]:
    """The pages, and the cookie that lets in, served by a user until SIGTERM."""
    as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    env = environment({"HOME": str(scratch), "TMPDIR": str(scratch)})
    python = [*as_user, sys.executable]
    if user and subprocess.run([*python, "-c", "import audit_svc.ui.serve"], env=env, cwd="/", check=False).returncode:
        pytest.skip("another user cannot run this program here")
    command = [*python, "-m", "audit_svc", "ui", "--listen", "127.0.0.1:0", "--db", str(database)]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, env=env, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            match = re.match(r"http://([^/]+)(/\S+)", process.stdout.readline())
            assert match is not None
            pages = Pages(match[1], database)
            yield pages, pages.ask(match[2]).headers["set-cookie"].split(";")[0]
        finally:
            process.terminate()


@pytest.mark.parametrize(
    ("way", "medium", "calls"),
    [
        ("stopped", "a folder of its own", FOLDED + IN_THE_WAL),
        ("stopped", "rights to read alone", FOLDED + IN_THE_WAL),
        ("killed", "a folder of its own", FOLDED + IN_THE_WAL),
        ("killed, without -shm", "a read-only mount", FOLDED + IN_THE_WAL),
        ("killed, its -wal cut short", "a folder of its own", FOLDED),
    ],
)
def test_a_ledger_that_is_shown_stays_as_it_is(ledgers, area, way, medium, calls):
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=area))) / "audit"
        folder.parent.chmod(0o755)
        shutil.copytree(ledgers / way, folder)
        scratch = folder.with_name("scratch")
        scratch.mkdir()
        scratch.chmod(0o777)
        read_from, user = place(stack, folder, medium)
        assert user in {0, NOBODY}
        before = state_of(folder)
        with pages_of(read_from / "audit.db", user, scratch) as (pages, cookie):
            for path in ("/-/ledger", "/ledger/tool_call_log"):
                assert pages.ask(path, Cookie=cookie).status == 200
            assert f'"n": {calls}' in pages.ask(COUNT, Cookie=cookie).text
            assert state_of(folder) == before
        assert state_of(folder) == before
        assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_the_pages_follow_a_service_that_starts_later(ledgers, tmp_path, way):
    shutil.copytree(ledgers / way, tmp_path / "audit")
    database = tmp_path / "audit" / "audit.db"
    with pages_of(database, 0, tmp_path) as (pages, cookie):
        assert f'"n": {FOLDED + IN_THE_WAL}' in pages.ask(COUNT, Cookie=cookie).text
        with serve(database) as service:
            for more in range(1, 4):
                record(service, 1)
                assert f'"n": {FOLDED + IN_THE_WAL + more}' in pages.ask(COUNT, Cookie=cookie).text
