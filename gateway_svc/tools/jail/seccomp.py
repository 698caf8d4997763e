"""Filters of system calls for the sandbox, against what its namespaces or rules do not cover.

Only the socket families that programs use are allowed: a virtual machine's socket to its host, for example, ignores
network namespaces. Kernel interfaces that ordinary programs do not need, and that cross namespaces or have often been
exploited, are closed: keyrings, BPF, performance events, userfaultfd, io_uring (which also creates sockets). The
sandbox's first process, which has no limits, can be neither traced nor written to.
"""

import errno
import platform
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

# From the kernel's headers: linux/audit.h, asm/unistd.h, linux/filter.h, linux/seccomp.h, linux/sched.h.
ARCHITECTURES = {"x86_64": (0xC000_003E, 0), "aarch64": (0xC000_00B7, 1)}
"""Each machine's number, and its column in the tables of system calls."""
CLOSED = {
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
SHARED_MEMORY_AND_QUEUES = {
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
}
NAMESPACES = {"unshare": (272, 97), "setns": (308, 268)}
OF_A_PROCESS = {
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "prlimit64": (302, 261),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}
"""Those that change the process in their first argument; 0 is the caller itself."""
SOCKET, SOCKETPAIR, PTRACE, WRITE = (41, 198), (53, 199), (101, 117), (311, 271)
SETPRIORITY, IOPRIO_SET, CLONE, CLONE3, TRUNCATE = (141, 140), (251, 30), (56, 220), (435, 435), (76, 45)
PRIO_PROCESS, IOPRIO_WHO_PROCESS = 0, 1
NEW_NAMESPACES = 0x7E02_0000
FIRST_PROCESS = 1
X32_BIT = 0x4000_0000
INTERNET_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
CONNECTED_TYPES = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
SOCKET_TYPE_MASK = 0xF

LOAD = 0x20
AND = 0x54
JUMP_EQUAL = 0x15
JUMP_AT_LEAST = 0x35
JUMP_ANY_BIT = 0x45
RETURN = 0x06
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT, SECOND_ARGUMENT_AT = 0, 4, 16, 24
ALLOW = 0x7FFF_0000
FAIL = 0x0005_0000

Step = tuple[int, int, int, int]


def system_call_filter() -> bytes | None:
    """The filter beside namespaces, in the kernel's format; None for a machine that is not listed here."""
    return _filter(lambda column: _sockets(column, (socket.AF_UNIX, *INTERNET_FAMILIES)))


def filter_without_namespaces(*, network: bool, truncate: bool) -> bytes:
    """The filter where there are no namespaces; empty for a machine that is not listed here.

    Without `network` there are no sockets but connected pairs; Unix sockets are closed with it, too, since their paths
    are beyond Landlock. `truncate` says whether files may be cut by their path.
    """

    def steps(column: int) -> Iterator[Step]:
        closed = [*SHARED_MEMORY_AND_QUEUES.values(), *NAMESPACES.values(), *([] if truncate else [TRUNCATE])]
        yield from _fail_if_equal([numbers[column] for numbers in closed], errno.EPERM)
        yield from _fail_if_equal([CLONE3[column]], errno.ENOSYS)  # its flags are in memory: C libraries take clone
        new = [(JUMP_ANY_BIT, 0, 1, NEW_NAMESPACES), (RETURN, 0, 0, FAIL | errno.EPERM)]
        yield from _check(CLONE[column], FIRST_ARGUMENT_AT, new)
        for numbers in OF_A_PROCESS.values():
            yield from _check(numbers[column], FIRST_ARGUMENT_AT, _fail_unless([0], errno.EPERM))
        for numbers, process in ((SETPRIORITY, PRIO_PROCESS), (IOPRIO_SET, IOPRIO_WHO_PROCESS)):
            yield from _check(numbers[column], FIRST_ARGUMENT_AT, _fail_unless([process], errno.EPERM))
            yield from _check(numbers[column], SECOND_ARGUMENT_AT, _fail_unless([0], errno.EPERM))
        # A pair that is not connected could be sent to any path.
        kind = [(AND, 0, 0, SOCKET_TYPE_MASK), *_fail_unless(CONNECTED_TYPES, errno.EACCES)]
        yield from _check(SOCKETPAIR[column], SECOND_ARGUMENT_AT, kind)
        yield from _sockets(column, INTERNET_FAMILIES if network else ())

    return _filter(steps) or b""


def _filter(more: Callable[[int], Iterable[Step]]) -> bytes | None:
    if platform.machine() not in ARCHITECTURES:
        return None
    architecture, column = ARCHITECTURES[platform.machine()]
    first_process = _fail_if_equal([FIRST_PROCESS], errno.EPERM)
    program = [
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (JUMP_EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, FAIL | errno.ENOSYS),
        (LOAD, 0, 0, NUMBER_AT),
        (JUMP_AT_LEAST, 0, 1, X32_BIT),
        (RETURN, 0, 0, FAIL | errno.ENOSYS),
        *_fail_if_equal([numbers[column] for numbers in CLOSED.values()], errno.EPERM),
        *_check(PTRACE[column], SECOND_ARGUMENT_AT, first_process),
        *_check(WRITE[column], FIRST_ARGUMENT_AT, first_process),
        *more(column),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in program)


def _sockets(column: int, families: Sequence[int]) -> list[Step]:
    return _check(SOCKET[column], FIRST_ARGUMENT_AT, _fail_unless(families, errno.EAFNOSUPPORT))


def _check(number: int, argument_at: int, steps: Sequence[Step]) -> list[Step]:
    """What is done with an argument of one system call, before the next is looked at."""
    check = [(LOAD, 0, 0, argument_at), *steps, (LOAD, 0, 0, NUMBER_AT)]
    return [(JUMP_EQUAL, 0, len(check), number), *check]


def _fail_if_equal(values: Sequence[int], error: int) -> list[Step]:
    return [step for value in values for step in ((JUMP_EQUAL, 0, 1, value), (RETURN, 0, 0, FAIL | error))]


def _fail_unless(values: Sequence[int], error: int) -> list[Step]:
    """Fails, unless it is one of the values, from which it jumps over the failure."""
    jumps = [(JUMP_EQUAL, len(values) - at, 0, int(value)) for at, value in enumerate(values)]
    return [*jumps, (RETURN, 0, 0, FAIL | error)]
