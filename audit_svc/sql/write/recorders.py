"""Who has recorded rows: only where there are several can one row stand under two names."""

from audit_svc.sql.marks import recorders_of
from audit_svc.sql.writing import Connection

WITHOUT_NAME = "recorded_by = ''"
WITH_NAME = "recorded_by <> ''"
OTHERS = (WITHOUT_NAME, WITH_NAME)
"""Conditions on a row: those among which a row that is sent again may stand already."""


class Recorders:
    """The names of the callers that have recorded rows: '' is one of them where a caller had none."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._names = recorders_of(connection)
        self._added: set[str] = set()

    def begin(self, names: set[str]) -> None:
        """In a transaction: names record rows in it."""
        # What the transaction before added may have been taken back.
        self._added = names - self._names
        for name in self._added:
            self._connection.execute("INSERT INTO recorders VALUES (?) ON CONFLICT (recorded_by) DO NOTHING", (name,))

    def committed(self) -> None:
        """After the COMMIT."""
        self._names |= self._added

    def others(self, name: str) -> str:
        """Where else a row of the caller may stand: one of OTHERS, or empty.

        Rows that were on their way when a list of callers was turned on, or off, come again under another name. Two
        callers with names are two: each has rows of its own.
        """
        known = self._names | self._added
        if name:
            return WITHOUT_NAME if "" in known else ""
        return WITH_NAME if known - {""} else ""
