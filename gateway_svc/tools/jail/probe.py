"""What every jail shows of the system, and whether a jail works here."""

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from gateway_svc.tools.files import Files, OpenedPath
from gateway_svc.tools.jail.processes import Program, descriptors_of

# From /etc only what programs need to start, to resolve names and to check certificates: the rest may hold secrets.
SYSTEM_PATHS = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime", "/etc/os-release"),
    *("/etc/group", "/etc/hosts", "/etc/nsswitch.conf", "/etc/passwd", "/etc/resolv.conf"),
    *("/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/ssl/certs", "/etc/ssl/openssl.cnf"),
)
PROBE_SECONDS = 10


class Sandbox(Protocol):
    """A jail for programs."""

    @property
    def name(self) -> str:
        """What makes it, as GATEWAY_BASH_SANDBOX names it."""
        ...

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
        """A program that runs argv in the jail, in `folder`: the workspace, or one in it.

        It sees the system's own folders, or `only` these files of the system.
        """
        ...


def why_not(jail: Sandbox, argv: Sequence[str], only: Sequence[str] | None = None) -> str:
    """Why a program fails in the jail; empty if it does not."""
    try:
        with ExitStack() as stack:
            folder = stack.enter_context(TemporaryDirectory(prefix="onrecord-probe-"))
            files = stack.enter_context(Files(Path(folder).resolve()))
            program = jail.program(argv, files, {}, writable=False, only=only)
            options, descriptors = stack.enter_context(descriptors_of(program.bubblewrap or {}))
            done = subprocess.run(
                [program.argv[0], *options, *program.argv[1:]],
                cwd=program.cwd,
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={},
                timeout=PROBE_SECONDS,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    if done.returncode == 0:
        return ""
    return done.stderr.decode(errors="replace").strip()[:200] or f"exit code {done.returncode}"
