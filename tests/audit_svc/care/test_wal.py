"""What SQLite passes over in a -wal is found, and nothing else."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from audit_svc.sqlite.care.check import check
from audit_svc.sqlite.care.wal import unread
from audit_svc.sqlite.open.connection import open_for_writing
from audit_svc.sqlite.open.files import reading
from tests.audit_svc.aged import make_ledger
from tests.audit_svc.care.test_backup import silent

COMMITS = 6
PAGE = 8192
FRAME = 24 + PAGE


@pytest.fixture
def copied(database: Path, tmp_path: Path) -> Path:
    """A database with its -wal, which holds some commits of a row each, and behind them old frames of a time before."""
    make_ledger(database, hours=1)
    target = tmp_path / "copied"
    target.mkdir()
    with closing(open_for_writing(database)) as connection:
        for name in range(4 * COMMITS):
            connection.execute(f"INSERT INTO recorders VALUES ('old-{name}')")
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
        for name in range(COMMITS):
            connection.execute(f"INSERT INTO recorders VALUES ('new-{name}')")
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{database}{suffix}", target / f"audit.db{suffix}")
    return target / "audit.db"


def read_commits(database: Path) -> int:
    with reading(database) as connection:
        count = connection.execute("SELECT count(*) FROM recorders WHERE recorded_by LIKE 'new-%'").fetchall()
    return int(str(count[0][0]))


def frames(wal: Path) -> int:
    """How many of its frames are of its own time: at least one for each commit."""
    content = wal.read_bytes()
    salts = content[16:24]
    return sum(content[at + 8 : at + 16] == salts for at in range(32, len(content), FRAME))


def flip(wal: Path, at: int) -> None:
    content = bytearray(wal.read_bytes())
    content[at] ^= 1
    wal.write_bytes(content)


def found(database: Path) -> list[tuple[str, str]]:
    return [(finding.state, finding.detail) for finding in check(database, silent) if finding.check == "wal"]


def test_a_whole_wal_is_read_whole_though_old_frames_stand_behind_it(copied):
    wal = copied.with_name("audit.db-wal")
    assert wal.stat().st_size > 32 + frames(wal) * FRAME
    assert read_commits(copied) == COMMITS
    assert unread(wal, silent) == (0, 0, False)
    assert found(copied) == [("ok", "")]


def test_what_stands_behind_a_damage_is_what_sqlite_does_not_read(copied):
    wal = copied.with_name("audit.db-wal")
    sound = wal.read_bytes()
    for frame in range(frames(wal)):
        flip(wal, 32 + frame * FRAME + 24 + 4000)
        left = unread(wal, silent)
        assert left.commits == COMMITS - read_commits(copied)
        assert left.pages == frames(wal) - frame
        state = "wrong" if left.commits > 1 else "note"
        told = (
            f"{left.pages} pages of the -wal ({left.commits} commits) are damaged or behind one that is, and not read"
        )
        assert found(copied) == [(state, told)]
        wal.write_bytes(sound)


def test_a_damaged_header_hides_everything(copied):
    flip(copied.with_name("audit.db-wal"), 12)
    assert read_commits(copied) == 0
    assert found(copied) == [("wrong", "the header of the -wal is damaged, so nothing of it is read")]
