"""The steps of the rollups: each keeps what was used in every period of so many milliseconds since 1970."""

from typing import NamedTuple

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Step(NamedTuple):
    """One step."""

    name: str
    """What its tables' names end with."""
    ms: int
    made_of: str
    """The step whose periods make its own; empty for the rows."""


STEPS = (Step("hourly", HOUR_MS, ""), Step("daily", DAY_MS, "hourly"), Step("32d", 32 * DAY_MS, "daily"))
"""The finest first; each is a multiple of the one before."""
