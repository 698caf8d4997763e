"""Hands a checkpoint to a command of the operator, such as one that commits it, or puts it into a locked bucket."""

import asyncio
import os
import shlex
import signal
from contextlib import suppress

from audit_svc.errors import AuditError

TIMEOUT_SECONDS = 60.0


class HookFailed(AuditError):
    """The command has not taken the checkpoint."""


async def run(command: str, note: str) -> None:
    """Runs the command with the note on its stdin. It has taken it when it ends with 0. Raises HookFailed."""
    nowhere = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *shlex.split(command),
            stdin=asyncio.subprocess.PIPE,
            stdout=nowhere,
            stderr=nowhere,
            start_new_session=True,
        )
    except OSError as error:
        raise HookFailed(f"it cannot be started ({error.strerror})") from None
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await process.communicate(note.encode())
    except TimeoutError:
        raise HookFailed(f"it has not ended after {TIMEOUT_SECONDS:.0f} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it started, too
            await process.wait()
    if process.returncode:
        raise HookFailed(f"it ended with {process.returncode}")
