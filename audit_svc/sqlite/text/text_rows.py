"""Sets of rows, as the index of texts keeps them.

Rows never change and row numbers only grow, so ZONE_ROWS numbers are a zone for ever. A set is of the rows of one zone
or of some neighbours, by their numbers from 0 on: a Roaring bitmap, in the form of
https://github.com/RoaringBitmap/RoaringFormatSpec.
"""

import apsw
from pyroaring import BitMap

ZONE_ROWS = 16_384


def pack(rows: BitMap) -> bytes:
    """A set as it is kept, in as few bytes as it can."""
    rows.run_optimize()
    return rows.serialize()


def unpack(packed: bytes) -> BitMap:
    """What pack() has packed.

    Raises:
        apsw.CorruptError: it was not packed so.
    """
    try:
        return BitMap.deserialize(packed)
    except (ValueError, IndexError):  # the latter for no bytes
        raise apsw.CorruptError("an entry of the index of texts, which rebuild-texts makes again") from None
