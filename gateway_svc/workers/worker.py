"""A worker as it knows itself: which one of how many, and where it finds the others."""

import hashlib
import os
import secrets
import shutil
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from gateway_svc.workers.table import Table

VARIABLE = "ONRECORD_WORKER"
"""Set by the supervisor for its workers: slot, number of workers, and folder, with slashes between them."""
SECRET_BYTES = 32


def home_of(key: str, workers: int) -> int:
    """The worker that what has this key belongs to: the same in every process of a gateway."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).digest()) % workers


@dataclass(frozen=True, slots=True)
class Worker:
    """One of the processes of a gateway."""

    slot: int
    workers: int
    folder: Path
    """Where the sockets of the workers and their table are: the supervisor's own, which nobody else may enter."""
    secret: bytes = field(repr=False)
    """Known to the workers alone: programs of agents run as the same user, and may see the sockets."""
    table: Table = field(repr=False)
    supervisor: int = field(default_factory=os.getppid)
    """Its process id."""

    @classmethod
    def from_environment(cls) -> Self | None:
        """What the supervisor says of this process; None where there is no supervisor.

        The secret comes through stdin, which ends when the supervisor does: then this process drains.
        """
        given = os.environ.pop(VARIABLE, "")
        if not given:
            return None
        slot, workers, folder = given.split("/", 2)
        lifeline = os.dup(0)  # not inheritable
        with open(os.devnull, "rb") as null:  # noqa: PTH123 - for its descriptor
            os.dup2(null.fileno(), 0)
        secret = os.read(lifeline, SECRET_BYTES)
        if len(secret) != SECRET_BYTES:
            raise SystemExit(1)  # the supervisor is gone already
        threading.Thread(target=_drain_at_its_end, args=(lifeline,), name="lifeline", daemon=True).start()
        path = Path("/", folder)
        return cls(int(slot), int(workers), path, secret, Table(path / "table", int(workers), int(slot)))

    def socket_of(self, slot: int) -> Path:
        """Where a worker listens for the others."""
        return self.folder / f"{slot}.sock"

    @property
    def page(self) -> Path:
        """Where this worker serves its metrics."""
        return page_of(self.folder, self.slot)

    def leave(self) -> None:
        """Removes what this worker had in the folder; the last one removes the folder if no supervisor is left to."""
        for path in (self.page, self.socket_of(self.slot)):
            path.unlink(missing_ok=True)
        if os.getppid() != self.supervisor and not any(self.folder.glob("*.sock")):
            shutil.rmtree(self.folder, ignore_errors=True)

    def is_home(self, key: str) -> bool:
        """Whether what has this key belongs here."""
        return home_of(key, self.workers) == self.slot


def page_of(folder: Path, slot: int) -> Path:
    """Where a worker serves its metrics."""
    return folder / f"{slot}.metrics"


def new_secret() -> bytes:
    """A secret for the workers of one gateway."""
    return secrets.token_bytes(SECRET_BYTES)


def _drain_at_its_end(lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
