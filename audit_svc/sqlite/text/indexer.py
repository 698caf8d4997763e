"""Work for the writer's idle time: the sums of sessions and the text index."""

import time
from functools import partial

import apsw

from audit_svc.ledger.idle import IdleSteps
from audit_svc.sqlite.text.text_index import index_rows, unindexed_rows
from audit_svc.sqlite.usage.session_sums import sum_sessions

COUNT_SECONDS = 1.0
"""While commits keep coming, what is not indexed is counted as often."""


class Indexer(IdleSteps):
    """Goes on with what is committed. It is called by the writer's thread."""

    def __init__(self, connection: apsw.Connection) -> None:
        works = {"summing": partial(sum_sessions, connection), "indexing": partial(index_rows, connection)}
        super().__init__(works, (apsw.Error,))
        self._connection = connection
        self._counted_at = float("-inf")
        self.unindexed_rows = 0
        """Rows that the index did not have when they were counted last."""

    def committed(self, committing_seconds: float) -> None:
        """Rows may have come. committing_seconds: how long commits have taken in all."""
        super().committed(committing_seconds)
        if self._committed_at > self._counted_at + COUNT_SECONDS:
            self._try_count()

    def step(self) -> None:
        """As IdleSteps.step()."""
        super().step()
        self._try_count()

    def _try_count(self) -> None:
        with self._attempt("counting"):
            self._count()

    def _count(self) -> None:
        self.unindexed_rows = unindexed_rows(self._connection)
        self._counted_at = time.monotonic()
