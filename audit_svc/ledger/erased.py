"""What stands in the place of a text that was erased."""

from collections.abc import Collection, Sequence
from typing import Any

ERASED = "[erased]"
"""An erased text is this; that it was erased, and not sent so, the row's receipt says."""


def is_same(kept: Sequence[Any], sent: Sequence[Any], erased: Collection[int]) -> bool:
    """Whether a row that is sent is the one that the ledger has, as far as the ledger can still tell.

    erased: the places of the texts that the kept row had, and no longer has: any text is the same there.
    """
    return all(has == sent[place] or (place in erased and sent[place] is not None) for place, has in enumerate(kept))
