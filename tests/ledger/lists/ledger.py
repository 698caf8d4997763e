"""The ledger of lists."""

from tests.ledger.lists.asked import Asked
from tests.ledger.lists.cared import Cared
from tests.ledger.lists.recorded import Recorded


class ListLedger(Recorded, Asked, Cared):
    """The Ledger protocol, whole."""
