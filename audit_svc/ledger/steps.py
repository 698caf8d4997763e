"""The steps of the rollups: each keeps what was used in every period of so many milliseconds since 1970.

A live step has every row that was committed. One that is folded has what began before the mark (usage_folded.before, a
whole hour): when an hour is over, the writer adds it up from the hourly rollups. So a commit pays for the live ones
alone, however many others make long ranges short.
"""

from dataclasses import dataclass

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Step:
    """One step."""

    name: str
    """What its tables' names end with."""
    ms: int
    made_of: str
    """The step whose periods make its own; empty for the rows. What is folded is made of such, or of hours."""
    live: bool = False
    narrow: bool = True
    """How its tables keep histograms: to_narrow() or to_blob() of audit_svc.ledger.histogram."""


STEPS = (
    Step("10min", HOUR_MS // 6, "", live=True),
    Step("hourly", HOUR_MS, "10min", live=True, narrow=False),
    Step("6h", 6 * HOUR_MS, "hourly"),
    Step("daily", DAY_MS, "hourly", live=True, narrow=False),
    Step("8d", 8 * DAY_MS, "6h"),
    Step("64d", 64 * DAY_MS, "8d"),
)
"""The finest first; each is a multiple of the one before."""
FINEST_MS = STEPS[0].ms
