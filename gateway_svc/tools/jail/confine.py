"""Confines itself by Landlock and a filter of system calls, and then becomes the program that it was given.

Run as `python -I -S confine.py ORDERS PROGRAM ARGUMENT…`; ORDERS is JSON, made by landlock.py. Between fork and exec
this could not be done safely in a process with threads. It imports nothing of ours, and it fails rather than confines
less. The working directory is the workspace; TMPDIR names the private folder.

Source of the numbers and structures: linux/landlock.h, linux/prctl.h, linux/capability.h.
"""

import ctypes
import json
import os
import stat
import struct
import sys
from typing import Any

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG = 1
PATH_BENEATH = 1

READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read files, read folders
WRITE_FILE = 1 << 1
REMOVE_AND_MAKE = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12  # all but devices
MAKE_DEVICE = 1 << 6 | 1 << 11
REFER, TRUNCATE, IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
REFER_SINCE, TRUNCATE_SINCE, NETWORK_SINCE, IOCTL_SINCE, SCOPES_SINCE = 2, 3, 4, 5, 6
"""The versions of the interface that brought each."""
FILE_RIGHTS = 1 << 0 | 1 << 1 | 1 << 2 | TRUNCATE
BIND_AND_CONNECT_TCP = 1 << 0 | 1 << 1
ABSTRACT_SOCKETS_AND_SIGNALS = 1 << 0 | 1 << 1

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
CAPABILITIES = 64
CAPABILITY_VERSION = 0x2008_0522
INSTRUCTION_BYTES = 8

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """The version of Landlock's interface in this kernel; 0 if there is none."""
    return max(int(_libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG)), 0)


def handled_rights(abi: int) -> int:
    """All rights on files that this version knows, each of which is denied unless a rule grants it."""
    rights = READ | WRITE_FILE | REMOVE_AND_MAKE | MAKE_DEVICE
    for since, right in ((REFER_SINCE, REFER), (TRUNCATE_SINCE, TRUNCATE), (IOCTL_SINCE, IOCTL_DEVICE)):
        rights |= right if abi >= since else 0
    return rights


def confine(orders: dict[str, Any]) -> None:
    """Confines this process and all that it starts, for good.

    Raises:
        OSError: the kernel refuses a part of it.
    """
    abi, handled = orders["abi"], handled_rights(orders["abi"])
    network = 0 if orders["network"] or abi < NETWORK_SINCE else BIND_AND_CONNECT_TCP
    attributes = struct.pack("QQQ", handled, network, ABSTRACT_SOCKETS_AND_SIGNALS if abi >= SCOPES_SINCE else 0)
    size = 8 if abi < NETWORK_SINCE else 16 if abi < SCOPES_SINCE else 24
    ruleset = _checked(_libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(size), 0))
    change = READ | WRITE_FILE | REMOVE_AND_MAKE | REFER | TRUNCATE
    for path in orders["read"]:
        _allow(ruleset, path, READ & handled)
    for path in orders["devices"]:
        _allow(ruleset, path, (READ | WRITE_FILE | TRUNCATE) & handled)
    _allow(ruleset, ".", (change if orders["writable"] else READ) & handled, must=True)
    if orders["writable"]:
        _allow(ruleset, os.environ["TMPDIR"], change & handled, must=True)
    _drop_capabilities()
    _checked(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(_libc.syscall(RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)
    _filter(bytes.fromhex(orders["filter"]))


def _allow(ruleset: int, path: str, rights: int, *, must: bool = False) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        if must:
            raise
        return  # what is not there needs no rule
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= FILE_RIGHTS
        _checked(_libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0))
    finally:
        os.close(descriptor)


def _drop_capabilities() -> None:
    """Without them root is bound by the modes of files, too; others have none to drop."""
    if os.geteuid() == 0:
        for capability in range(CAPABILITIES):
            _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails for those that this kernel does not know
    _checked(_libc.capset(struct.pack("Ii", CAPABILITY_VERSION, 0), struct.pack("6I", *[0] * 6)))


def _filter(program: bytes) -> None:
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(program) // INSTRUCTION_BYTES, ctypes.addressof(code))
    _checked(_libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, head, 0, 0))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _be_killed_first() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="utf-8") as score:  # noqa: PTH123 - one import less, in each call
            score.write("1000")
    except OSError:
        pass


if __name__ == "__main__":
    try:
        _be_killed_first()
        confine(json.loads(sys.argv[1]))
        os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - what this is for
    except Exception as error:  # noqa: BLE001 - whatever it is, nothing runs
        sys.exit(f"landlock: {type(error).__name__}: {error}")
