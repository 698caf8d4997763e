"""Histograms of durations that can be added to each other: what percentiles of any sum of groups are made from.

A histogram is a number made of 40-bit lanes, the lowest lane for the lowest bucket; in the database it is a BLOB, the
same number with its highest byte first. So histograms are merged by adding numbers, which takes half a microsecond
where the libraries' sketches take eleven and more (docs/decisions/store-rollups.md). Durations below 32 ms have a
bucket each; above, each power of two is cut into 16, so that a quantile is off by at most 1/32 of itself.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate

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


def quantiles(histogram: int, shares: Sequence[float]) -> list[float]:
    """For each share (0 to 1) what at least so much of the durations does not exceed, in milliseconds, within 1/32.

    Nothing where there are no durations.
    """
    if not histogram:
        return []
    counts = to_blob(histogram)
    # The bytes begin with the highest bucket.
    lanes = [int.from_bytes(counts[end - _LANE_BYTES : end]) for end in range(len(counts), 0, -_LANE_BYTES)]
    upto = list(accumulate(lanes))
    return [middle(bisect_left(upto, max(1, math.ceil(upto[-1] * share)))) for share in shares]
