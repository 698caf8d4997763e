"""A file that is no ledger is left as it is: its mode, its bytes, and its folder."""

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.forked import run_command


def _text(path: Path) -> None:
    path.write_text("root:x:0:0:root:/root:/bin/bash\n" * 1000)


def _short(path: Path) -> None:
    path.write_text("a")


def _database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.commit()
    connection.close()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.long
@pytest.mark.parametrize("words", [("serve",), ("migrate", "up"), ("vacuum",), ("check",)])
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_text, "not an SQLite database"),
        (_short, "not an SQLite database"),
        (_database, "but no ledger of audit-svc: look where the ledger is"),
        (_pipe, "not a file"),
    ],
)
def test_a_command_leaves_it_as_it_is(
    tmp_path: Path, make: Callable[[Path], None], told: str, words: tuple[str, ...]
) -> None:
    path = tmp_path / "some.file"
    make(path)
    path.chmod(0o644)
    before = path.stat()
    ran = run_command("audit_svc", {"AUDIT_DB": str(path), "AUDIT_LISTEN": "127.0.0.1:0"}, *words)
    assert ran.returncode, ran.stdout + ran.stderr
    assert told in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    after = path.stat()
    assert (stat.S_IMODE(after.st_mode), after.st_size, after.st_mtime_ns) == (
        0o644,
        before.st_size,
        before.st_mtime_ns,
    )
    assert [found.name for found in tmp_path.iterdir()] == ["some.file"]
