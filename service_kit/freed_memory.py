"""Gives freed memory back to the kernel, where glibc keeps it.

By itself glibc trims only the top of its first heap. A service has a dozen heaps, and small blocks that stay keep open
the holes that large answers leave: after a storm of them, two thirds of a gateway's heaps were free, and resident.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from service_kit.collector import Looks

EVERY_SECONDS = 30.0
LOOKS = 6
"""So often it is looked for cycles meanwhile: the more objects came since the last look, the longer it takes."""

HEAPS = 2
"""How many heaps glibc makes at most for all threads: by itself eight for each core, and each keeps its own holes."""
OWN_PAGES_BYTES = 2**20
"""What is as large has pages of its own, which are the kernel's again once it is freed. By itself glibc raises this to
the largest block that it has seen freed, up to 32 MiB, and has all that is smaller in its heaps."""

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8

_libc = ctypes.CDLL(None)


def keep_few_heaps() -> None:
    """Has glibc keep less of what is freed: mallopt(3). Call it before there are threads.

    It does nothing where the C library has no such function.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, HEAPS)
        _libc.mallopt(_M_MMAP_THRESHOLD, OWN_PAGES_BYTES)


@contextmanager
def trimming(every_seconds: float = EVERY_SECONDS) -> Iterator[None]:
    """Gives freed memory back again and again, in a thread, while the body runs.

    Cycles are freed before, which the collector looks for seldom by itself: few objects of them may hold large texts.
    Then the free pages of all heaps are given back, where the C library can: malloc_trim(3).
    """
    over = threading.Event()

    def trim() -> None:
        looks = Looks()
        for number in count(1):
            if over.wait(every_seconds / LOOKS):
                return
            looks.look()
            if number % LOOKS == 0 and hasattr(_libc, "malloc_trim"):
                _libc.malloc_trim(0)

    threading.Thread(target=trim, name="trim", daemon=True).start()
    try:
        yield
    finally:
        over.set()
