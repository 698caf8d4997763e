"""What a service holds of the machine: it must have it back when those who meant harm are gone."""

import os
import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from audit_svc.sqlite.store import READERS
from demo.processes import Service

MIB = 2**20
GROWTH = 256 * MIB
"""The most that a service may take of memory, where a case says nothing else."""
BACK_SECONDS = 60.0
"""How long to wait until what an attack took is given back: idle connections stay open for seconds."""
LOOP_POOL = (os.cpu_count() or 1) + 4
POOLS = {"threads": LOOP_POOL + READERS, ".db": LOOP_POOL, ".segment": 2}
"""What may have grown meanwhile, to its bound: the loop's pool of threads and the ledger's readers; descriptors of a
database, which SQLite keeps for its next connection while another one holds a lock on the file; and of the spool's
segments, of which there are none before the first row."""

Held = dict[str, Counter[str]]
"""Descriptors by what they are of, those of some files by themselves; threads, children and temporary files by name."""


@dataclass
class Watched:
    """A service, and what it held before a case."""

    service: Service
    temporary: Path
    """Its folder for temporary files."""
    growth: int = GROWTH
    before: Held = field(default_factory=dict)
    cases: list[tuple[str, float, float]] = field(default_factory=list)
    """Its cases, and when each began and ended, where one service stands several."""
    _base: int = 0
    _grown: int = 0

    def begin(self) -> None:
        """From here on: what is held now, must be all that is held at the end."""
        self.before = self.held()
        self.forget_peak()
        self._grown = 0

    def held(self) -> Held:
        """What it holds now."""
        process = Path(f"/proc/{self.service.pid}")
        threads = list((process / "task").iterdir())
        children = [child for thread in threads for child in _content(thread / "children").split()]
        descriptors = Counter(_target(entry) for entry in (process / "fd").iterdir())
        files = {
            suffix: Counter({name: descriptors.pop(name) for name in [*descriptors] if name.endswith(suffix)})
            for suffix in (".db", ".segment")
        }
        return {
            **files,
            "descriptors": descriptors,
            "threads": Counter(_content(thread / "comm").strip() for thread in threads),
            "children": Counter(_content(Path(f"/proc/{child}/comm")).strip() for child in children),
            "temporary files": Counter(str(entry.relative_to(self.temporary)) for entry in self.temporary.rglob("*")),
        }

    def forget_peak(self) -> int:
        """Another case begins: returns what it takes of memory now, above which this one is measured."""
        self._grown = self.grown()
        Path(f"/proc/{self.service.pid}/clear_refs").write_text("5")
        self._base = memory(self.service)
        return self._base

    def grown(self) -> int:
        """The most memory that one of the cases took, in bytes."""
        return max(self._grown, memory(self.service, "VmHWM") - self._base)

    def left(self) -> Held:
        """What it still holds beyond what it held before, once it had the time to give all back."""
        deadline = time.monotonic() + BACK_SECONDS
        while (left := more_than(self.before, self.held())) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def wrong(self) -> list[str]:
        """What is not as it must be behind a case. A service that has ended holds nothing."""
        if self.service.process.poll() is not None:
            return []
        wrong = [f"it took {self.grown() / MIB:.0f} MiB"] if self.grown() > self.growth else []
        left = self.left()
        return wrong + ([f"it still holds {left}"] if left else [])


def more_than(before: Held, after: Held) -> Held:
    """What is held in a greater number than before."""
    return {
        kind: after[kind] - before[kind]
        for kind in after
        if after[kind].total() > before[kind].total() + POOLS.get(kind, 0)
    }


WATCHED: dict[int, Watched] = {}
"""By the ids of their processes."""


def forget_peak(service: Service) -> int:
    """Lets VmHWM of a service that is watched begin anew, and returns what it takes now."""
    return WATCHED[service.pid].forget_peak()


def memory(service: Service, field: str = "VmRSS") -> int:
    """What the process takes, in bytes; VmHWM is the most that it has taken."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{service.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _target(descriptor: Path) -> str:
    with suppress(OSError):
        return re.sub(r"\d+", "N", str(descriptor.readlink()))
    return "gone"


def _content(path: Path) -> str:
    with suppress(OSError):
        return path.read_text()
    return ""
