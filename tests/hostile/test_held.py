"""Proof that what a case leaves behind is noticed."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest

from demo.processes import Service
from tests.hostile import held
from tests.hostile.held import MIB, Watched

pytestmark = pytest.mark.hostile

HOLDS = {
    "descriptors": "kept = open('/dev/null')",
    "threads": "for _ in range(40): threading.Thread(target=threading.Event().wait, daemon=True).start()",
    "children": "kept = subprocess.Popen(['sleep', '60'])",
    "temporary files": "(folder / 'left').touch()",
    "memory": "kept = bytes(range(256)) * 4 * 2**17",
    "": "",
}


@pytest.mark.parametrize("kind", HOLDS)
def test_what_is_left_behind_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(held, "BACK_SECONDS", 0)
    code = f"""
import pathlib, subprocess, sys, threading
folder = pathlib.Path(sys.argv[1])
print('ready', flush=True)
input()
{HOLDS[kind]}
print('held', flush=True)
input()
if kept := globals().get('kept'):
    getattr(kept, 'kill', int)()
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        watched = Watched(Service(process, BytesIO()), tmp_path, 64 * MIB)
        assert process.stdout.readline() == b"ready\n"
        watched.begin()
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"held\n"
        told = watched.wrong()
        process.communicate(b"\n")
    assert len(told) == bool(kind), told
    assert not kind or ("it took" if kind == "memory" else kind) in told[0]
