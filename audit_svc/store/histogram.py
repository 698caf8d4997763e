"""Histograms of durations that can be added to each other: what percentiles of any sum of groups are made from.

A histogram is a number made of 40-bit lanes, the lowest lane for the lowest bucket; in the database it is a BLOB, the
same number with its highest byte first. So histograms are merged by adding numbers, which takes half a microsecond
where the libraries' sketches take eleven and more (docs/decisions/store-rollups.md). Durations below 32 ms have a
bucket each; above, each power of two is cut into 16, so that a quantile is off by at most 1/32 of itself.
"""

from collections import Counter
from collections.abc import Iterable

LANE_BITS = 40
MAX_DURATION_MS = 2**36 - 1
"""Longer ones, 2.2 years and more, count as this."""

_EXACT_BITS = 5
_LANE_BYTES = LANE_BITS // 8


def bucket(duration_ms: int) -> int:
    """The bucket of a duration of 0 or more: 0 to 527."""
    duration_ms = min(duration_ms, MAX_DURATION_MS)
    shift = max(duration_ms.bit_length() - _EXACT_BITS, 0)
    return (shift << (_EXACT_BITS - 1)) + (duration_ms >> shift)


def middle(number: int) -> float:
    """The middle of a bucket in milliseconds, which is its value where it has but one."""
    shift = max((number >> (_EXACT_BITS - 1)) - 1, 0)
    lowest = (number - (shift << (_EXACT_BITS - 1))) << shift
    return lowest + ((1 << shift) - 1) / 2


_ONES = [1 << (LANE_BITS * number) for number in range(bucket(MAX_DURATION_MS) + 1)]
_BUCKETS = [bucket(duration_ms) for duration_ms in range(4096)]


def count(durations_ms: Iterable[int]) -> int:
    """The histogram of durations."""
    counts = Counter(durations_ms)
    known = len(_BUCKETS)
    return sum(
        _ONES[_BUCKETS[duration] if duration < known else bucket(duration)] * times
        for duration, times in counts.items()
    )


def to_blob(histogram: int) -> bytes:
    """The histogram as the database keeps it."""
    return histogram.to_bytes(-(-histogram.bit_length() // LANE_BITS) * _LANE_BYTES)


def from_blob(blob: bytes) -> int:
    """The histogram of a BLOB. Histograms are merged by adding them."""
    return int.from_bytes(blob)


def quantile(histogram: int, share: float) -> float | None:
    """What at least share (0 to 1) of the durations do not exceed, in milliseconds, within 1/32; None without any."""
    counts = to_blob(histogram)
    # From the highest bucket down, as the bytes are.
    lanes = [int.from_bytes(counts[first : first + _LANE_BYTES]) for first in range(0, len(counts), _LANE_BYTES)]
    total = sum(lanes)
    if not total:
        return None
    beyond = total - max(1, -int(-total * share // 1))
    for index, lane in enumerate(lanes):
        beyond -= lane
        if beyond < 0:
            return middle(len(lanes) - 1 - index)
    raise AssertionError("a rank is within the total")
