"""A filter of system calls for the sandbox, against what its namespaces do not cover.

Only the socket families that programs use are allowed: a virtual machine's socket to its host, for example, ignores
network namespaces. Kernel interfaces that ordinary programs do not need, and that cross namespaces or have often been
exploited, are closed: keyrings, BPF, performance events, userfaultfd, io_uring (which also creates sockets). The
sandbox's first process, which has no limits, can be neither traced nor written to.
"""

import errno
import platform
import socket
import struct
from collections.abc import Sequence

# From the kernel's headers: linux/audit.h, asm/unistd.h, linux/filter.h, linux/seccomp.h.
MACHINES = {
    "x86_64": (0xC000_003E, 41, 101, 311, (248, 249, 250, 298, 321, 323, 425, 426, 427)),
    "aarch64": (0xC000_00B7, 198, 117, 271, (217, 218, 219, 241, 280, 282, 425, 426, 427)),
}
"""Architecture, the numbers of socket(), ptrace() and process_vm_writev(), and those of add_key, request_key, keyctl,
perf_event_open, bpf, userfaultfd, io_uring_setup, io_uring_enter and io_uring_register."""
FIRST_PROCESS = 1
X32_BIT = 0x4000_0000
SOCKET_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)

LOAD = 0x20
JUMP_EQUAL = 0x15
JUMP_AT_LEAST = 0x35
RETURN = 0x06
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT, SECOND_ARGUMENT_AT = 0, 4, 16, 24
ALLOW = 0x7FFF_0000
FAIL = 0x0005_0000


def system_call_filter() -> bytes | None:
    """The filter in the format of bubblewrap's --seccomp; None for a machine that is not listed here."""
    if platform.machine() not in MACHINES:
        return None
    architecture, socket_number, ptrace, write, closed = MACHINES[platform.machine()]
    program = [
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (JUMP_EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, FAIL | errno.ENOSYS),
        (LOAD, 0, 0, NUMBER_AT),
        (JUMP_AT_LEAST, 0, 1, X32_BIT),
        (RETURN, 0, 0, FAIL | errno.ENOSYS),
        *_fail_if_equal(closed, errno.EPERM),
        *_fail_if_first_process(ptrace, SECOND_ARGUMENT_AT),
        *_fail_if_first_process(write, FIRST_ARGUMENT_AT),
        (JUMP_EQUAL, 1, 0, socket_number),
        (RETURN, 0, 0, ALLOW),
        (LOAD, 0, 0, FIRST_ARGUMENT_AT),
        *_allow_if_equal(SOCKET_FAMILIES),
        (RETURN, 0, 0, FAIL | errno.EAFNOSUPPORT),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def _fail_if_equal(values: Sequence[int], error: int) -> list[tuple[int, int, int, int]]:
    return [step for value in values for step in ((JUMP_EQUAL, 0, 1, value), (RETURN, 0, 0, FAIL | error))]


def _fail_if_first_process(number: int, argument_at: int) -> list[tuple[int, int, int, int]]:
    check = [(LOAD, 0, 0, argument_at), *_fail_if_equal([FIRST_PROCESS], errno.EPERM), (LOAD, 0, 0, NUMBER_AT)]
    return [(JUMP_EQUAL, 0, len(check), number), *check]


def _allow_if_equal(values: Sequence[int]) -> list[tuple[int, int, int, int]]:
    return [step for value in values for step in ((JUMP_EQUAL, 0, 1, int(value)), (RETURN, 0, 0, ALLOW))]
