"""The ids under which several callers recorded rows: both stand, and an operator should know."""

from collections.abc import Iterator
from typing import NamedTuple

from audit_svc.sql.database import Connection

MAX_IDS = 20
"""How many ids of one kind are named."""

_KINDS = {
    "tool_call_log": "the tool call",
    "cost_log": "the model request",
    "sessions": "the session",
    "producers": "the producer's id",
}


class SharedId(NamedTuple):
    """An id that several callers recorded."""

    what: str
    """What it is the id of, with its article."""
    id: str
    recorded_by: tuple[str, ...]

    @property
    def names(self) -> str:
        """Those who recorded it."""
        return ", ".join(repr(name) if name else "a caller without a name" for name in self.recorded_by)


def shared_ids(connection: Connection) -> Iterator[SharedId]:
    """The first MAX_IDS ids of each kind, in their order. Reads the index of each table's ids."""
    ((callers,),) = connection.execute("SELECT count(*) FROM recorders")
    if int(callers) < 2:
        return
    for table, what in _KINDS.items():
        shared = f"SELECT id FROM {table} GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT {MAX_IDS}"  # noqa: S608 - names of ours
        of_id = f"SELECT recorded_by FROM {table} WHERE id = ? ORDER BY recorded_by"  # noqa: S608 - a name of ours
        for (id_,) in connection.execute(shared).fetchall():
            names = connection.execute(of_id, (id_,))
            yield SharedId(what, str(id_), tuple(str(name) for (name,) in names))
