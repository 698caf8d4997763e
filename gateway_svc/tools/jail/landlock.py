"""The jail that Landlock makes of rules on files, with a filter of system calls: it needs no privilege and no program.

Commands read what `SYSTEM_PATHS` lists and write the workspace and a folder for temporary files, made for each. There
are no namespaces, so the filter closes what these would cover: all sockets, System V memory, other processes'
priorities and limits. docs/security.md says what is left.
"""

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway_svc.tools.files import Files, OpenedPath
from gateway_svc.tools.jail import confine
from gateway_svc.tools.jail.probe import SYSTEM_PATHS, why_not
from gateway_svc.tools.jail.processes import Program
from gateway_svc.tools.jail.seccomp import filter_without_namespaces

LAUNCHER = str(Path(confine.__file__).resolve())
DEVICES = ("/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero")
# No process's folder is among them: other processes' command lines may hold secrets.
MACHINE = ("/proc/cpuinfo", "/proc/filesystems", "/proc/loadavg", "/proc/meminfo", "/proc/stat", "/proc/uptime")
NEWEST_ABI = 7
"""The newest version of Landlock whose rights are handled; later ones are used as this one."""


@dataclass(frozen=True, slots=True)
class Landlock:
    """How to run something confined by Landlock."""

    name = "landlock"

    abi: int
    """The version of Landlock's interface."""
    visible: tuple[Path, ...] = ()
    """Folders and files that commands may read besides the system's own."""
    hide: tuple[Path, ...] = ()
    """Folders and files that must not be in the workspace."""

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
        """A program that runs argv in the jail, which has nothing of the workspace but `folder`, if that is given.

        Raises:
            PermissionError: a path to hide is in the workspace, which Landlock cannot hide there.
        """
        if any(path.is_relative_to(files.path) for path in self.hide):
            raise PermissionError
        shown = [*SYSTEM_PATHS, *map(str, self.visible), *MACHINE] if only is None else list(only)
        orders = {
            "abi": self.abi,
            "read": shown,
            "devices": DEVICES,
            "writable": writable,
            "network": network,
            "filter": filter_without_namespaces(network=network, truncate=self.abi >= confine.TRUNCATE_SINCE).hex(),
        }
        # -S: nothing of ours or of a package is loaded, only what is in the standard library.
        command = [sys.executable, "-I", "-S", LAUNCHER, json.dumps(orders), *argv]
        own = {"PATH": _only_in(env.get("PATH", ""), shown), "GIT_CONFIG_NOSYSTEM": "1"}
        here = f"/proc/self/fd/{folder.descriptor if folder else files.root}"
        return Program(command, here, {**env, **own}, prefix=prefix, own_temporary=writable)


def _only_in(search_path: str, shown: Sequence[str]) -> str:
    """The folders of PATH that commands may read: shells and git take a refusal for an error, not for absence."""
    folders = [folder for folder in search_path.split(":") if any(Path(folder).is_relative_to(path) for path in shown)]
    return ":".join(folders)


def find_landlock(visible: Sequence[Path], hide: Sequence[Path]) -> Landlock | str:
    """The jail, or why it cannot be had here."""
    if not filter_without_namespaces(network=False, truncate=True):
        return f"there is no filter of system calls for {platform.machine()}"
    for hidden in hide:
        if any(hidden.is_relative_to(path) for path in visible):
            return f"it cannot hide {hidden} in what GATEWAY_BASH_VISIBLE shows"
    abi = min(confine.version(), NEWEST_ABI)
    if abi == 0:
        return "this kernel has none"
    jail = Landlock(abi, tuple(visible), tuple(hide))
    return why_not(jail, ["/bin/sh", "-c", "! (: </proc/self/status) 2>/dev/null"]) or jail
