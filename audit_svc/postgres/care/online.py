"""Care of a running ledger in PostgreSQL. Copies of it are made by PostgreSQL's own tools."""

from collections.abc import Callable
from contextlib import closing
from typing import BinaryIO, TypeVar

from audit_svc.errors import Unsupported
from audit_svc.ledger.erasing import Erasure
from audit_svc.ledger.pruning import Progress
from audit_svc.postgres.care.erase import Erase
from audit_svc.postgres.care.prune import Prune
from audit_svc.postgres.open.cancelling import CancelToken
from audit_svc.postgres.open.connection import Connection, connect, translated
from audit_svc.postgres.read.database import sum_sql
from audit_svc.postgres.write.writer import Writer
from audit_svc.sql.care import online
from audit_svc.sql.care.prune import count

T = TypeVar("T")


class OnlineCare(online.OnlineCare[Connection]):
    """Prunes, erasures and legal holds, one of each at a time in this replica."""

    def __init__(self, url: str, writer: Writer) -> None:
        super().__init__(writer)
        self._url = url
        self._postgres = writer
        self._token = CancelToken()

    def give_up(self) -> None:
        """Ends what is read, whatever it waits for. From any thread."""
        self._token.cancel()

    async def back_up(self) -> tuple[BinaryIO, int]:
        """Raises Unsupported."""
        raise Unsupported(
            "a ledger in PostgreSQL is backed up by PostgreSQL's own tools: pg_basebackup with an archive of its log, "
            "pg_dump, or the backups of whoever runs it"
        )

    def _new_prune(self, before_ms: int, by: str, *, confirm_clock: bool) -> Prune:
        return Prune(before_ms, by, self._postgres.clock, confirm_clock)

    def _new_erasure(self, wanted: Erasure) -> Erase:
        return Erase(wanted, self._postgres.clock)

    def _count_prunable(self, connection: Connection, before_ms: int) -> Progress:
        return count(connection, before_ms, sum_sql)

    def _is_left_in_log(self) -> bool:
        # The write-ahead log, and the table's file until it is vacuumed: when that is over nobody here can see.
        return True

    def _read(self, query: Callable[[Connection], T]) -> T:
        with translated(), closing(connect(self._url, token=self._token)) as connection:
            return query(connection)
