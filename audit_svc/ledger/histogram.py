"""Histograms of durations that can be added, to compute percentiles of any union of groups.

A histogram is a number made of 40-bit lanes, the lowest lane for the lowest bucket. In the database it is a BLOB: how
many bytes a count has (1, 2 or 5), then the counts, that of the highest bucket first. So histograms are merged by
adding numbers, which takes half a microsecond where the libraries' sketches take eleven and more
(docs/decisions/store-rollups.md). Durations below 32 ms have a bucket each; above, each power of two is cut into 16,
so that a quantile is off by at most 1/32 of itself.
"""

import math
import operator
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from struct import Struct

LANE_BITS = 40
MAX_DURATION_MS = 2**36 - 1
"""The longest duration, 2.2 years; longer ones count as this."""
NO_BUCKET = -1
"""Of a call without a duration."""

_EXACT_BITS = 5
_MAX_SHIFT = MAX_DURATION_MS.bit_length() - _EXACT_BITS
_LANE_BYTES = LANE_BITS // 8


def bucket(duration_ms: int) -> int:
    """The bucket of a duration of 0 or more: 0 to 527."""
    duration_ms = min(duration_ms, MAX_DURATION_MS)
    shift = max(duration_ms.bit_length() - _EXACT_BITS, 0)
    return (shift << (_EXACT_BITS - 1)) + (duration_ms >> shift)


def middle(number: int) -> float:
    """The middle of a bucket in milliseconds, which is exact if the bucket has only one value."""
    shift = max((number >> (_EXACT_BITS - 1)) - 1, 0)
    lowest = (number - (shift << (_EXACT_BITS - 1))) << shift
    return lowest + ((1 << shift) - 1) / 2


_ONES = [1 << (LANE_BITS * number) for number in range(bucket(MAX_DURATION_MS) + 1)]
_BEYOND_A_BYTE, _BEYOND_TWO_BYTES = (
    int.from_bytes(((1 << LANE_BITS) - (1 << bits)).to_bytes(_LANE_BYTES) * len(_ONES)) for bits in (8, 16)
)
_BUCKETS = [number for number in range(bucket(4096)) for _ in range(1 << max((number >> (_EXACT_BITS - 1)) - 1, 0))]
"""The bucket of each short duration."""


def count(durations_ms: Iterable[int]) -> int:
    """The histogram of durations."""
    known = len(_BUCKETS)
    counts = Counter([_BUCKETS[one] if one < known else bucket(one) for one in durations_ms])
    # Bytes rather than a sum of integers, each as long as the histogram.
    lanes = bytearray(_LANE_BYTES * (max(counts, default=-1) + 1))
    for number, times in counts.items():
        lanes[_LANE_BYTES * number : _LANE_BYTES * (number + 1)] = times.to_bytes(_LANE_BYTES, "little")
    return int.from_bytes(lanes, "little")


def of_buckets(buckets: Iterable[int], counts: Iterable[int]) -> int:
    """The histogram with these counts in these buckets. Those in NO_BUCKET are passed over."""
    return sum(_ONES[number] * times for number, times in zip(buckets, counts, strict=True) if number != NO_BUCKET)


def bucket_sql(duration_ms: str, shift: int = 0, last: int = _MAX_SHIFT) -> str:
    """What bucket() says as an expression of SQL, for a duration with shift to last bits beyond the exact ones.

    A tree of comparisons, since SQLite has no exact logarithm. Longer durations count as MAX_DURATION_MS.
    """
    if shift == last:
        longest = f"CASE WHEN {duration_ms} > {MAX_DURATION_MS} THEN {MAX_DURATION_MS} ELSE {duration_ms} END"
        value = longest if shift == _MAX_SHIFT else duration_ms
        return f"{shift << (_EXACT_BITS - 1)} + ({value} >> {shift})"
    middle = (shift + last) // 2
    below, above = bucket_sql(duration_ms, shift, middle), bucket_sql(duration_ms, middle + 1, last)
    return f"CASE WHEN {duration_ms} < {1 << (middle + _EXACT_BITS)} THEN {below} ELSE {above} END"


def to_blob(histogram: int) -> bytes:
    """The histogram in the database's format."""
    lanes = _lane_bytes(histogram)
    if not histogram & _BEYOND_A_BYTE:
        return b"\1" + lanes[4::5]
    if not histogram & _BEYOND_TWO_BYTES:
        narrow = bytearray(len(lanes) // _LANE_BYTES * 2)
        narrow[::2], narrow[1::2] = lanes[3::5], lanes[4::5]
        return b"\2" + narrow
    return b"\5" + lanes


def from_blob(blob: bytes) -> int:
    """The histogram of a BLOB. Histograms are merged by adding them."""
    return int.from_bytes(_widened(blob))


def merged(sizes: str, blobs: bytes) -> int:
    """The histogram of many BLOBs whose counts have the same bytes, that number once before them all.

    sizes: the bytes that each has when its counts have five, as in 10s5s.
    """
    return sum(map(int.from_bytes, Struct(sizes).unpack(_widened(blobs))))


def _lane_bytes(histogram: int) -> bytes:
    """The lanes, the highest first."""
    return histogram.to_bytes(-(-histogram.bit_length() // LANE_BITS) * _LANE_BYTES)


def _widened(blob: bytes) -> bytes:
    """All counts with the bytes of a lane."""
    width, lanes = blob[0], blob[1:]
    if width == _LANE_BYTES:
        return lanes
    wide = bytearray(len(lanes) // width * _LANE_BYTES)
    if width == 2:
        wide[3::5] = lanes[::2]
    wide[4::5] = lanes[width - 1 :: width]
    return bytes(wide)


def quantiles(histogram: int, shares: Sequence[float]) -> list[float]:
    """For each share (0 to 1) what at least so much of the durations does not exceed, in milliseconds, within 1/32.

    Nothing where there are no durations.
    """
    if not histogram:
        return []
    upto = list(accumulate(_lanes(histogram)))
    return [middle(bisect_left(upto, max(1, math.ceil(upto[-1] * share)))) for share in shares]


def _lanes(histogram: int) -> Iterable[int]:
    """The counts, that of the lowest bucket first."""
    lanes = bytearray(_lane_bytes(histogram)[::-1])
    high = lanes[_LANE_BYTES - 1 :: _LANE_BYTES]
    del lanes[_LANE_BYTES - 1 :: _LANE_BYTES]
    low = Struct(f"<{len(high)}I").unpack(lanes)
    return map(operator.add, low, [byte << 32 for byte in high]) if any(high) else low
