"""A sealer that is killed in any write leaves a log that goes on."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit_svc.seal.folder import KEY
from audit_svc.seal.tiles import TileWriter
from audit_svc.sealing.places import DATABASE
from audit_svc.sqlite.seal.index import FolderIndex
from tests.audit_svc.samples import audit_row
from tests.audit_svc.seal.conftest import Record, Seal


@pytest.mark.long
def test_a_sealer_that_is_killed_at_any_write_leaves_a_log_that_goes_on(
    seal: Seal, record: Record, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        pass

    left = 0

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def write_or_die(*args: Any, **given: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return write(*args, **given)

        return write_or_die

    for place, name in ((os, "fsync"), (Path, "replace"), (Path, "mkdir"), (FolderIndex, "add"), (TileWriter, "sign")):
        monkeypatch.setattr(place, name, dying(getattr(place, name)))
    deaths = 0
    for at in range(1, 60):
        record(tool_calls=[audit_row() for _ in range(17)])
        left = 1 + at % 12
        try:
            seal.run()
        except Killed:
            deaths += 1
        left = 0
        assert seal.run() == 17 * at
        assert not seal.verify().problems
    assert deaths > 30


KILLED = """
import os, signal, sys
from pathlib import Path
from audit_svc.sealing import __main__ as sealing
from audit_svc.sqlite.seal.index import FolderIndex

left = int(sys.argv[1])

def killed_in(place, name):
    real = getattr(place, name)
    def run(*args, **given):
        global left
        left -= 1
        if left == 0:
            if name == "write":
                real(args[0], args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **given)
    setattr(place, name, run)

for name in ("open", "fdopen", "write", "fsync", "link"):
    killed_in(os, name)
for place, name in ((Path, "replace"), (Path, "mkdir"), (Path, "unlink"), (FolderIndex, "add")):
    killed_in(place, name)
sealing.give_way = lambda: None
sealing.main(*sys.argv[2:])
"""


def is_killed(seal: Seal, at: int) -> bool:
    """Seals in a process that gets SIGKILL in one of its writes, by its number; a write is cut in half."""
    arguments = [str(at), str(seal.folder), str(seal.folder / KEY), "ledger.example.com/test", "60"]
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        env=os.environ | {DATABASE: str(seal.database)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=False,
    ).returncode
    assert ended in {0, -signal.SIGKILL}
    return ended != 0


@pytest.mark.long
@pytest.mark.parametrize("has_begun", [False, True], ids=["its first", "a later"])
def test_a_sealing_process_that_gets_sigkill_in_any_write_of_a_start_leaves_a_log_that_goes_on(
    seal: Seal, record: Record, tmp_path: Path, has_begun: bool
):
    deaths, dies = 0, True
    while dies:
        if not has_begun:
            seal = Seal(seal.database, tmp_path / f"seal-{deaths}")
        record(tool_calls=[audit_row() for _ in range(3)])
        dies = is_killed(seal, deaths + 1)
        deaths += dies
        assert seal.run() == 3 * (deaths + (not dies))
        assert (seal.verify().problems, seal.verify().unsealed) == ([], {})
    assert deaths > 15
