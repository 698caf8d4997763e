"""Times as people write them."""

import re
from datetime import UTC, datetime

from service_kit.terminal.command import BadParameter

_AGE = re.compile(r"(\d+)\s*(s|m|h|d|w)")
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}


def parse_time(text: str, now_ms: int) -> int:
    """A time such as 2026-11-01 or 2026-11-01T08:00+01:00, or an age such as 90d, in milliseconds since 1970-01-01 UTC.

    A time without a zone is UTC. Ages are in seconds, minutes, hours, days or weeks: s, m, h, d, w.

    Raises:
        BadParameter: it is neither.
    """
    if age := _AGE.fullmatch(text.strip()):
        return max(0, now_ms - int(age[1]) * _UNIT_MS[age[2]])
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        raise BadParameter(
            f"{text!r} is neither a time such as 2026-11-01 or 2026-11-01T08:00 nor an age such as 12h, 90d or 4w"
        ) from None
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def show_time(milliseconds: int) -> str:
    """A time in UTC to the second."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
