"""Ids of rows and folders: UUIDs of version 7 (RFC 9562, section 5.7), in the order of their times."""

import os
import time
from uuid import UUID


def uuid7() -> UUID:
    """A new id: 48 bits of milliseconds since 1970, then 74 bits from the kernel.

    From the kernel each time: a generator with a state in the process gives a forked child the ids of its parent.
    """
    number = int.from_bytes(os.urandom(10)) | (time.time_ns() // 1_000_000) << 80
    return UUID(int=number & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)
