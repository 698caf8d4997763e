"""What a service has freed is the kernel's again, though something small lies behind each of its pieces."""

import subprocess
import sys

PROGRAM = """
import re, time
from pathlib import Path
from service_kit.freed_memory import trimming

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

large, small = [], []
for number in range(300):
    large.append(b"x" * 100_000)
    small.append(bytes(1000))
full = resident()
large.clear()
freed = resident()
with trimming(0.01):
    while resident() > full - 20:
        time.sleep(0.01)
print(full - freed)
"""


def test_holes_between_small_blocks_are_given_back():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 20, "glibc gives it back by itself"
