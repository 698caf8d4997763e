"""Memory and descriptors of a service that stands in a storm, and whether they grow."""

import statistics
from pathlib import Path

from demo.processes import Service
from tests.hostile.held import MIB, Watched, memory

FLAT_MIB, FLAT_DESCRIPTORS = 64, 32
"""The most that the medians of memory and descriptors may grow from the third quarter of a storm to the fourth."""
FLAT_AT_REST_MIB = 32
"""The most that memory at rest may grow from the middle to the end."""
MOST_MIB = 768
"""The most memory that a service may take for all of the peers at once."""


class Gauge:
    """Memory and descriptors of a service that stands, over the second half."""

    def __init__(self, name: str, service: Service, folder: Path) -> None:
        self.name = name
        self.watched = Watched(service, folder, MOST_MIB * MIB)
        self.watched.begin()
        self.samples: list[tuple[int, int]] = []
        self.at_rest: list[int] = []
        """Memory while no peer is at work, in MiB."""

    def sample(self) -> None:
        """Reads them."""
        service = self.watched.service
        self.samples.append((memory(service) // MIB, len(list(Path(f"/proc/{service.pid}/fd").iterdir()))))

    def rest(self) -> None:
        """Reads what it takes now that no peer is at work."""
        self.at_rest.append(memory(self.watched.service) // MIB)

    def wrong(self, *, flat: bool) -> list[str]:
        """Prints the figures; what is not as it must be."""
        half = len(self.samples) // 2
        quarters = self.samples[:half], self.samples[half:]
        (before, fds_before), (after, fds_after) = (
            [statistics.median(column) for column in zip(*quarter, strict=True)] for quarter in quarters
        )
        peak = self.watched.grown() / MIB
        print(
            f"{self.name}: memory {before:.0f} MiB in the third quarter, {after:.0f} in the fourth (medians), "
            f"{peak:.0f} MiB taken at most; descriptors {fds_before:.0f}, {fds_after:.0f}"
        )
        print(f"{self.name}: memory by tenths of that half, in MiB: {' '.join(map(str, self._by_tenths()))}")
        print(
            f"{self.name}: memory at rest, at its beginning, middle and end, in MiB: {' '.join(map(str, self.at_rest))}"
        )
        wrong = self.watched.wrong()
        if flat and self.at_rest[-1] > self.at_rest[1] + FLAT_AT_REST_MIB:
            wrong.append(f"its memory at rest grows: {self.at_rest[1]} MiB, {self.at_rest[-1]} MiB")
        if flat and after > before + FLAT_MIB:
            wrong.append(f"its memory grows: {before:.0f} MiB, {after:.0f} MiB")
        if flat and fds_after > fds_before + FLAT_DESCRIPTORS:
            wrong.append(f"its descriptors grow: {fds_before:.0f}, {fds_after:.0f}")
        return [f"{self.name}: {what}" for what in wrong]

    def _by_tenths(self) -> list[int]:
        """Medians of memory, from the first tenth of the samples to the last."""
        size = max(1, len(self.samples) // 10)
        parts = (self.samples[begin : begin + size] for begin in range(0, len(self.samples) - size + 1, size))
        return [round(statistics.median(memory for memory, _ in part)) for part in parts]
