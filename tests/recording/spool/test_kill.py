"""kill -9 of a real process at a moment that nobody chose."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from onrecord.audit.v1 import audit_pb2
from onrecord.common.v1 import common_pb2

from demo.processes import REPOSITORY
from tests.recording.samples import opened, read_all

RECORDER = Path(__file__).with_name("recorder.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'protos'}"}


def record_and_kill(state_dir: Path, sync: str, first: int) -> tuple[set[int], set[int]]:
    """Numbers of the intents and of the outcomes that the process had taken when it died."""
    with subprocess.Popen(
        [sys.executable, str(RECORDER), str(state_dir), sync, str(first)], stdout=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        time.sleep(random.uniform(0, 0.15))
        process.kill()
        said += process.stdout.read()
    lines = said[: said.rfind(b"\n")].decode().split("\n")
    taken = {kind: {int(line[1:]) for line in lines if line[0] == kind} for kind in "io"}
    return taken["i"], taken["o"]


@pytest.mark.long
@pytest.mark.parametrize("sync", ["always", "interval", "never"])
def test_every_row_that_was_taken_survives_kill_9(tmp_path: Path, sync: str) -> None:
    intents: set[int] = set()
    outcomes: set[int] = set()
    for round_ in range(3):
        new = record_and_kill(tmp_path, sync, round_ * 1_000_000)
        intents |= new[0]
        outcomes |= new[1]
    with opened(tmp_path) as spool:
        rows = read_all(spool)
        # A kill in the middle of a write tears a record that was not taken yet: at most the last one of each process.
        assert spool.counters.missing == spool.counters.quarantined <= 3
    found = {int(row.id.removeprefix("call-")): row for row in rows}
    assert len(found) == len(rows)
    assert set(found) >= intents | outcomes
    # The last call of each process was cut short: at most its outcome, or its intent, was taken and not told.
    ended = {
        number
        for number, row in found.items()
        if isinstance(row, audit_pb2.AuditRow) and row.outcome == common_pb2.OUTCOME_SUCCEEDED
    }
    assert ended >= outcomes
    assert len(found) - len(ended) <= 3
    assert len(found) - len(intents) <= 3
