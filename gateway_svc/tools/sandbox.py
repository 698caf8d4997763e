"""The jail that commands run in: bubblewrap, where the machine allows it.

In it the system is read-only and only what is listed here is there at all; the workspace is writable; /tmp, the
processes and, unless it is given back, the network are the command's own. Nothing in it has privileges, or can get any.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from gateway_svc.errors import SettingsError

SandboxMode = Literal["required", "auto", "off"]

# Of /etc only what programs need to start, to resolve names and to check certificates: the rest may hold secrets.
SYSTEM_PATHS = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime", "/etc/os-release"),
    *("/etc/group", "/etc/hosts", "/etc/nsswitch.conf", "/etc/passwd", "/etc/resolv.conf"),
    *("/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/ssl/certs", "/etc/ssl/openssl.cnf"),
)
ORDINARY_ID = "1000"
PROBE_SECONDS = 10

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How to run something in bubblewrap."""

    program: str
    """The path of bwrap."""
    options: tuple[str, ...]
    """The namespaces that this machine's bubblewrap can make, and the system as it is to be seen."""
    visible: tuple[Path, ...] = ()
    """Folders and files that commands may read besides the system's own."""
    hide: tuple[Path, ...] = ()
    """Folders and files that commands must not see, wherever they are."""
    tmp_bytes: int = 512 * 1024 * 1024
    """What fits into /tmp, and again into /dev/shm."""

    def wrap(
        self,
        argv: Sequence[str],
        workspace: Path,
        *,
        folder: Path | None = None,
        writable: bool = True,
        network: bool = False,
    ) -> list[str]:
        """The command line that runs argv in the sandbox, in `folder`: the workspace, or a folder in it.

        The workspace has the same path as outside.
        """
        size = str(self.tmp_bytes)
        return [
            self.program,
            *self.options,
            *(() if network else ("--unshare-net",)),
            *("--proc", "/proc", "--dev", "/dev"),
            *("--size", size, "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),  # noqa: S108 - private ones
            *("--size", size, "--tmpfs", "/tmp", "--dir", "/var", "--symlink", "/tmp", "/var/tmp"),  # noqa: S108
            *(part for path in self.visible for part in ("--ro-bind-try", str(path), str(path))),
            *self._masks(path for path in self.hide if not path.is_relative_to(workspace)),
            *("--bind" if writable else "--ro-bind", str(workspace), str(workspace)),
            *self._masks(path for path in self.hide if path.is_relative_to(workspace)),
            *("--remount-ro", "/", "--chdir", str(folder or workspace), "--"),
            *argv,
        ]

    def _masks(self, hidden: Iterator[Path]) -> Iterator[str]:
        for path in hidden:
            if path.is_dir():
                yield from ("--tmpfs", str(path), "--remount-ro", str(path))
            elif path.exists():
                yield from ("--ro-bind", os.devnull, str(path))


def _system_mounts() -> Iterator[str]:
    """Each mount costs time in every call, so that what is a link to somewhere in /usr becomes a link."""
    for path in map(Path, SYSTEM_PATHS):
        if path.is_symlink() and path.resolve().is_relative_to("/usr"):
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.exists():
            yield from ("--ro-bind-try", str(path), str(path))


def find_sandbox(
    mode: SandboxMode,
    *,
    visible: Sequence[Path] = (),
    hide: Sequence[Path] = (),
    tmp_bytes: int = 512 * 1024 * 1024,
) -> Sandbox | None:
    """Finds out whether bubblewrap works here, and logs the answer. To be called once, at boot; it blocks for a moment.

    Raises:
        SettingsError: the mode is `required` and it does not work.
    """
    if mode == "off":
        log.warning("sandbox.off", reason="GATEWAY_BASH_SANDBOX is off")
        return None
    reason = "bwrap is not installed"
    if program := shutil.which("bwrap"):
        for options in _option_sets():
            sandbox = Sandbox(program, (*options, *_system_mounts()), tuple(visible), tuple(hide), tmp_bytes)
            reason = _probe(sandbox)
            if not reason:
                log.info("sandbox.ready", kind="bubblewrap", nested_namespaces="--disable-userns" not in options)
                return sandbox
    if mode == "required":
        raise SettingsError(f"GATEWAY_BASH_SANDBOX is required, and bubblewrap does not work here: {reason}")
    log.warning("sandbox.missing", reason=reason)
    return None


def _option_sets() -> Iterator[tuple[str, ...]]:
    base = (
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--hostname", "sandbox", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *(("--uid", ORDINARY_ID, "--gid", ORDINARY_ID) if os.geteuid() == 0 else ()),
    )
    yield ("--disable-userns", *base)
    yield base  # bubblewrap before 0.8


def _probe(sandbox: Sandbox) -> str:
    """Why a program does not run in the sandbox; empty when it does."""
    try:
        argv = sandbox.wrap(["/bin/sh", "-c", "test -r /proc/self/status"], Path("/usr"), writable=False)
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, env={}, timeout=PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    if done.returncode == 0:
        return ""
    return done.stderr.decode(errors="replace").strip()[:200] or f"exit code {done.returncode}"
