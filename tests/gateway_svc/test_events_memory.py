"""What the events of turns take in memory is what is counted of them."""

import subprocess
import sys

import pytest

PROGRAM = """
import re
from pathlib import Path
from onrecord.audit.v1 import audit_pb2
from gateway_svc.turns import events

def resident():
    return 1024 * int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

events.MAX_KEPT_BYTES = 2**30
kept, row = events.TurnEvents(), audit_pb2.CostRow(model="m", duration_ms=4, input_tokens=1000, output_tokens=50)
kept.put(events.step_finished(row))
before = resident()
for _ in range(60_000):
    kept.put(events.step_finished(row))
print(resident() - before, kept.kept_bytes)
"""


@pytest.mark.long
def test_it_is_what_is_counted() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    taken, counted = map(int, done.stdout.split())
    assert taken < counted * 1.5 + 4 * 2**20
