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
    small.append(bytes(10_000))  # more than has a place elsewhere
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


CYCLES = """
import gc, time, weakref
from service_kit.collector import tune_collector
from service_kit.freed_memory import trimming

class Turn:
    pass

tune_collector()
turn = Turn()
turn.itself, turn.text = turn, "x" * 10_000_000
gone = weakref.ref(turn)
del turn
looked = set()
gc.callbacks.append(lambda phase, info: looked.add(info["generation"]))
with trimming(0.01):
    while gone():
        time.sleep(0.01)
assert looked == {1}, "what stays is looked at too, and nobody is answered meanwhile"
"""


def test_what_a_cycle_holds_is_freed_though_few_objects_came_since():
    """The collector of a service looks for cycles when there are tens of thousands of new objects."""
    subprocess.run([sys.executable, "-c", CYCLES], timeout=60, check=True)


HEAPS = """
import ctypes, re, tempfile, threading
from service_kit.freed_memory import keep_few_heaps

libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p

def heaps():
    ready, over = threading.Barrier(9), threading.Event()

    def hold():
        libc.malloc(50_000)
        ready.wait()
        over.wait()

    threads = [threading.Thread(target=hold) for _ in range(8)]
    for thread in threads:
        thread.start()
    ready.wait()
    over.set()
    with tempfile.NamedTemporaryFile() as told:
        file = libc.fopen(told.name.encode(), b"w")
        libc.malloc_info(0, ctypes.c_void_p(file))
        libc.fclose(ctypes.c_void_p(file))
        return len(re.findall(rb"<heap nr=", told.read()))

%s
print(heaps())
"""


def test_threads_share_two_heaps():
    by_itself, few = (
        int(
            subprocess.run(
                [sys.executable, "-c", HEAPS % then], capture_output=True, text=True, timeout=60, check=True
            ).stdout
        )
        for then in ("", "keep_few_heaps()")
    )
    assert by_itself > few == 2
