"""Sets of blocks of rows, as the index of texts keeps them.

Rows never change and row numbers only grow, so BLOCK_ROWS numbers are a block for ever, and ZONE_BLOCKS blocks a zone.
A set is of the blocks of one zone or of some neighbours, by their numbers from 0 on.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, compress
from operator import sub

BLOCK_ROWS = 8
ZONE_BLOCKS = 2048
JOINED_ZONES = 4
"""At most as many zones are one set: its bytes fit a page of SQLite's, of 8 KiB, several times."""

_SKIP = 255
_STEPS = [bytes([_SKIP] * (step // _SKIP) + [step % _SKIP]) for step in range(JOINED_ZONES * ZONE_BLOCKS)]

_IS_NUMBER = bytes(byte != _SKIP for byte in range(256))

Blocks = int | frozenset[int]
"""Many blocks as a number with a bit for each that there is, few one by one."""


def zone_rows() -> int:
    """Row numbers of a zone."""
    return BLOCK_ROWS * ZONE_BLOCKS


def pack(blocks: Sequence[int], zones: int) -> bytes:
    """A set of the blocks of so many zones, which come in their order, in one of two forms.

    Few are written as the distance of each to the one before, in a byte; many as a bit for each block that there is.
    """
    size = zones * ZONE_BLOCKS // 8
    if 2 * len(blocks) < size and 2 * len(distances := _distances(blocks)) < size:
        return distances
    return _as_bits(blocks, zones)


def unpack(packed: bytes, zones: int) -> Blocks:
    """What pack() has packed."""
    return int.from_bytes(packed, "little") if _is_bits(packed, zones) else frozenset(_numbers(packed))


def narrow(blocks: Blocks, packed: bytes, zones: int) -> Blocks:
    """Those of blocks that are among packed, of so many zones."""
    if not isinstance(blocks, int):
        if _is_bits(packed, zones):
            return frozenset([block for block in blocks if packed[block >> 3] >> (block & 7) & 1])
        return blocks.intersection(_numbers(packed))
    if _is_bits(packed, zones):
        return blocks & int.from_bytes(packed, "little")
    return frozenset([block for block in _numbers(packed) if blocks >> block & 1])


def join(parts: Mapping[int, bytes], zones: int) -> bytes:
    """Packed sets of single zones, by their numbers from 0 on, as one of so many zones."""
    sets = {zone: unpack(packed, 1) for zone, packed in sorted(parts.items())}
    if 16 * sum(map(count, sets.values())) < zones * ZONE_BLOCKS:
        numbers: list[int] = []
        for zone, blocks in sets.items():
            first = zone * ZONE_BLOCKS
            numbers += [first + block for block in (bits(blocks) if isinstance(blocks, int) else sorted(blocks))]
        return pack(numbers, zones)
    return b"".join(_as_bits(sets.get(zone, 0), 1) for zone in range(zones))


def has_all(packed: bytes, zones: int, zone: int, part: bytes) -> bool:
    """Whether a packed set of so many zones has all blocks of a packed one of a single zone of these."""
    blocks, first = unpack(part, 1), zone * ZONE_BLOCKS
    if _is_bits(packed, zones):
        stored = packed[first // 8 : (first + ZONE_BLOCKS) // 8]
        return count(narrow(blocks, stored, 1)) == count(blocks)
    numbers = bits(blocks) if isinstance(blocks, int) else blocks
    return frozenset(_numbers(packed)).issuperset([first + block for block in numbers])


def count(blocks: Blocks) -> int:
    """How many they are."""
    return blocks.bit_count() if isinstance(blocks, int) else len(blocks)


def by_zone(blocks: Blocks) -> Iterator[tuple[int, int]]:
    """Zones that have any of blocks, as numbers from 0 on, each with a bit for each of its blocks that there is."""
    if isinstance(blocks, int):
        whole = (1 << ZONE_BLOCKS) - 1
        for zone in range(-(-blocks.bit_length() // ZONE_BLOCKS)):
            if mask := blocks >> zone * ZONE_BLOCKS & whole:
                yield zone, mask
        return
    zones: dict[int, int] = {}
    for block in blocks:
        zone, place = divmod(block, ZONE_BLOCKS)
        zones[zone] = zones.get(zone, 0) | 1 << place
    yield from zones.items()


def bits(mask: int) -> Iterator[int]:
    """The places of the bits of mask, from the lowest on."""
    while mask:
        yield (mask & -mask).bit_length() - 1
        mask &= mask - 1


def _is_bits(packed: bytes, zones: int) -> bool:
    return 8 * len(packed) == zones * ZONE_BLOCKS


def _as_bits(blocks: int | Iterable[int], zones: int) -> bytes:
    if not isinstance(blocks, int):
        digits = bytearray(b"0" * (zones * ZONE_BLOCKS))
        for block in blocks:
            digits[block] = ord("1")
        blocks = int(digits[::-1], 2)
    return blocks.to_bytes(zones * ZONE_BLOCKS // 8, "little")


def _distances(blocks: Sequence[int]) -> bytes:
    """The first and what is added from each to the next; more than a byte holds is _SKIP some times, and the rest."""
    found = [blocks[0], *map(sub, blocks[1:], blocks)]
    if max(found) < _SKIP:
        return bytes(found)
    return b"".join(map(_STEPS.__getitem__, found))


def _numbers(distances: bytes) -> Iterator[int]:
    return compress(accumulate(distances), distances.translate(_IS_NUMBER))
