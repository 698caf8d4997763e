"""Gives freed memory back to the kernel, where glibc keeps it.

By itself glibc trims only the top of its first heap. A service has a dozen heaps, and small blocks that stay keep open
the holes that large answers leave: after a storm of them, two thirds of a gateway's heaps were free, and resident.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EVERY_SECONDS = 30.0

_libc = ctypes.CDLL(None)


@contextmanager
def trimming(every_seconds: float = EVERY_SECONDS) -> Iterator[None]:
    """Gives back the free pages of all heaps again and again, in a thread, while the body runs: malloc_trim(3).

    It does nothing where the C library has no such function.
    """
    over = threading.Event()

    def trim() -> None:
        while not over.wait(every_seconds):
            _libc.malloc_trim(0)

    if hasattr(_libc, "malloc_trim"):
        threading.Thread(target=trim, name="trim", daemon=True).start()
    try:
        yield
    finally:
        over.set()
