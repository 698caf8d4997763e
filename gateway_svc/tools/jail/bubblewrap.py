"""The jail that bubblewrap makes of namespaces.

It contains only what is listed here, read-only, and the workspace, writable. /tmp, the process tree and, unless
configured otherwise, the network are the command's own. No process in it has privileges, or can get any.

A gateway that runs as root needs more: in the sandbox root has no capabilities, but still owns root's files, such as
the kernel's settings in /proc, which are made read-only one by one. Running the gateway as root is still a bad idea.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gateway_svc.programs import installed
from gateway_svc.tools.files import Files, OpenedPath
from gateway_svc.tools.jail.probe import SYSTEM_PATHS, why_not
from gateway_svc.tools.jail.processes import Program
from gateway_svc.tools.jail.seccomp import system_call_filter

# The parts of /proc that root owns and could change without a capability; container runtimes mask the same.
ROOTS_FOLDERS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/driver",
    "/proc/fs",
    "/proc/irq",
    "/proc/scsi",
    "/proc/sys",
)
ROOTS_FILES = (
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/mtrr",
    "/proc/sched_debug",
    "/proc/timer_list",
)
ORDINARY_ID = "1000"


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """How to run something in bubblewrap."""

    name = "bubblewrap"

    bwrap: str
    """The path of bubblewrap's program."""
    namespaces: tuple[str, ...]
    """The namespaces that a command gets."""
    tmp_bytes: int
    """The size of a command's /tmp, and of its /dev/shm."""
    system_calls: bytes | None
    """The filter of system calls, or None if there is none for this machine."""
    visible: tuple[Path, ...] = ()
    """Folders and files that commands may read besides the system's own."""
    hide: tuple[Path, ...] = ()
    """Folders and files hidden from commands, although they are in what is visible or in the workspace."""

    def program(
        self,
        argv: Sequence[str],
        files: Files,
        env: Mapping[str, str],
        *,
        folder: OpenedPath | None = None,
        writable: bool = True,
        only: Sequence[str] | None = None,
        network: bool = False,
        prefix: Sequence[str] = (),
    ) -> Program:
        """A program that runs argv in the sandbox, in `folder`: the workspace, at its path outside, or one in it.

        The workspace is bound as bubblewrap's working directory, so that its path does not matter. `only` are the files
        of the system that a program sees which needs no more.
        """
        workspace = str(files.path)
        command = [
            self.bwrap,
            *self.namespaces,
            *(_system() if only is None else _bound(only)),
            *_own_mounts(self.tmp_bytes),
            *(() if network else ("--unshare-net",)),
            *(_bound(self.visible) if only is None else ()),
            *(_masks(self.hide, self.visible) if only is None else ()),
            *("--bind" if writable else "--ro-bind", ".", workspace),
            *_masks(self.hide, (files.path,)),
            *("--remount-ro", "/", "--chdir", str(files.path_of(folder)) if folder else workspace, "--"),
            *argv,
        ]
        read = {"--seccomp": self.system_calls} if self.system_calls else {}
        return Program(command, f"/proc/self/fd/{files.root}", env, prefix=prefix, bubblewrap=read)


def find_bubblewrap(visible: Sequence[Path], hide: Sequence[Path], tmp_bytes: int) -> Bubblewrap | str:
    """The strictest variant that works here, or why none does. `tmp_bytes` is the size of a /tmp, and of a /dev/shm."""
    reason = "bwrap is not installed"
    if bwrap := installed("bwrap"):
        for namespaces, system_calls in _variants():
            jail = Bubblewrap(bwrap, namespaces, tmp_bytes, system_calls, tuple(visible), tuple(hide))
            reason = why_not(jail, ["/bin/sh", "-c", "test -r /proc/self/status"])
            if not reason:
                return jail
    return reason


def _variants() -> Iterator[tuple[tuple[str, ...], bytes | None]]:
    """Yields variants, from the strictest to those for old versions of bubblewrap and unusual kernels."""
    namespaces = (
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--hostname", "sandbox", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *(("--uid", ORDINARY_ID, "--gid", ORDINARY_ID) if os.geteuid() == 0 else ()),
    )
    for system_calls in dict.fromkeys((system_call_filter(), None)):
        yield ("--disable-userns", *namespaces), system_calls
        yield namespaces, system_calls


@cache
def _system() -> tuple[str, ...]:
    options: list[str] = []
    # Each mount costs time in every call, so a link into /usr becomes a link.
    for path in map(Path, SYSTEM_PATHS):
        if path.is_symlink() and path.resolve().is_relative_to("/usr"):
            options += ("--symlink", str(path.readlink()), str(path))
        elif path.exists():
            options += _bound([path])
    return tuple(options)


def _bound(paths: Iterable[Path | str]) -> Iterator[str]:
    for path in paths:
        yield from ("--ro-bind-try", str(path), str(path))


@cache
def _own_mounts(tmp_bytes: int) -> tuple[str, ...]:
    return tuple(_each_own_mount(tmp_bytes))


def _each_own_mount(tmp_bytes: int) -> Iterator[str]:
    size = str(tmp_bytes)
    # /proc/1: the first process has no limits, and a command that could write to its memory would escape its own.
    yield from ("--proc", "/proc", "--tmpfs", "/proc/1", "--remount-ro", "/proc/1", "--dev", "/dev")
    yield from ("--size", size, "--tmpfs", "/dev/shm", "--remount-ro", "/dev")  # noqa: S108 - its own
    yield from ("--size", size, "--tmpfs", "/tmp", "--dir", "/var", "--symlink", "/tmp", "/var/tmp")  # noqa: S108
    if os.geteuid() == 0:
        for folder in filter(os.path.exists, ROOTS_FOLDERS):
            yield from ("--ro-bind", folder, folder)
        for file in filter(os.path.exists, ROOTS_FILES):
            yield from ("--ro-bind", os.devnull, file)


def _masks(hidden: Sequence[Path], trees: Sequence[Path]) -> Iterator[str]:
    """Masks hidden paths in these trees; paths in none of them are not in the sandbox anyway."""
    for path in hidden:
        if not any(path.is_relative_to(tree) for tree in trees):
            continue
        if path.is_dir():
            yield from ("--tmpfs", str(path), "--remount-ro", str(path))
        elif path.exists():
            yield from ("--ro-bind", os.devnull, str(path))
