"""Prints the next high water, from a table of yesterday's."""

from datetime import datetime, timedelta

LUNAR_DAY = timedelta(hours=24, minutes=50)
YESTERDAY = datetime(2026, 3, 19, 6, 12)

print(f"next high water: {YESTERDAY + LUNAR_DAY:%H:%M}")
