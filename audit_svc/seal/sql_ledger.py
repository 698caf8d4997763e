"""What the seal asks every store in the same SQL, with `?` for values: see ledger.SealedLedger."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from audit_svc.seal import leaf
from audit_svc.seal.leaf import Kind
from audit_svc.seal.ledger import Row


class SqlSealedLedger:
    """A store's own class says how a leaf is made there, and what one moment is."""

    labels: ClassVar[str]
    """The labels of a session `s` as the text that its revisions have."""
    compared: ClassVar[str] = "{}"
    """What two such texts are compared as."""

    def _all(self, sql: str, *values: object) -> list[Any]:
        """The rows of a statement."""
        raise NotImplementedError

    def _each(self, sql: str, *values: object) -> Iterable[Any]:
        """As _all(), read while they are taken: there may be as many as the ledger has."""
        raise NotImplementedError

    def _leaves(self, kind: Kind, where: str, *values: object) -> Iterator[Row]:
        """The positions and leaves of rows of a kind."""
        raise NotImplementedError

    def leaf_at(self, kind: Kind, position: int) -> bytes | None:
        """A row's leaf as the ledger has it now."""
        return next((said for _, said in self._leaves(kind, f"{kind.column('position')} = ?", position)), None)

    def leaves_of(self, kind: Kind, id_: str, recorded_by: str | None) -> list[tuple[int, bytes]]:
        """The positions and leaves of the rows of an id."""
        who, values = ("", (id_,)) if recorded_by is None else (" AND recorded_by = ?2", (id_, recorded_by))
        return list(self._leaves(kind, f"id = ?1{who}", *values))

    def owners(self, kind: Kind, id_: str) -> list[str]:
        """Who recorded rows of an id, sorted."""
        found = self._all(f"SELECT DISTINCT recorded_by FROM {kind.table} WHERE id = ?", id_)  # noqa: S608 - names of ours
        return sorted(name for (name,) in found)

    def newest_ids(self, kind: Kind, limit: int) -> list[str]:
        """The ids of so many rows at most, the newest first."""
        table = "sessions" if kind.name == "session" else kind.table  # its own has a row for each revision
        sql = f"SELECT id FROM {table} ORDER BY created_at DESC, id DESC LIMIT ?"  # noqa: S608 - names of ours
        return [id_ for (id_,) in self._all(sql, limit)]

    def row(self, kind: Kind, position: int) -> Mapping[str, Any]:
        """The columns of a row. Raises KeyError: it is gone."""
        names = [*kind.columns, *(leaf.BESIDE if kind.hashed else ())]
        found = self._all(
            f"SELECT {', '.join(names)} FROM {kind.table} WHERE {kind.column('position')} = ?",  # noqa: S608 - names of ours
            position,
        )
        if not found:
            raise KeyError(position)
        return dict(zip(names, found[0], strict=True))

    def count_after(self, kind: Kind, position: int) -> int:
        """How many rows are behind a position."""
        sql = f"SELECT count(*) FROM {kind.table} WHERE {kind.column('position')} > ?"  # noqa: S608 - names of ours
        return int(self._all(sql, position)[0][0])

    def was_removed(self, kind: Kind, position: int) -> bool:
        """Whether a prune says that it removed a row."""
        return bool(
            self._all(
                "SELECT 1 FROM removal_log WHERE removed_kind = ? AND first_position <= ? AND last_position >= ?",
                kind.name,
                position,
                position,
            )
        )

    def removals(self) -> Iterable[tuple[int, str, int, int]]:
        """What prunes removed."""
        return self._each("SELECT position, removed_kind, first_position, last_position FROM removal_log")

    def producers(self) -> dict[tuple[str, str], int]:
        """The highest number that has come of each producer."""
        found = self._all("SELECT id, recorded_by, highest_sequence FROM producers")
        return {(id_, name): number for id_, name, number in found}

    def holes(self, producer: tuple[str, str], first: int, last: int) -> list[tuple[int, int]]:
        """Numbers that have not come of a producer."""
        found = self._all(
            "SELECT first_sequence, last_sequence FROM producer_gaps WHERE producer_id = ? AND recorded_by = ? "
            "AND first_sequence <= ? AND last_sequence >= ? ORDER BY first_sequence",
            *producer,
            last,
            first,
        )
        return [(max(begin, first), min(end, last)) for begin, end in found]

    def erased(self, kind: Kind) -> Iterable[tuple[int, bool, bool]]:
        """Rows whose texts are erased."""
        rows = self._each(
            "SELECT position, (SELECT last_position FROM erasure_log WHERE erased_kind = ? "  # noqa: S608 - names of ours
            "AND first_position <= r.position ORDER BY first_position DESC LIMIT 1), salt IS NULL "
            f"FROM {kind.table} r WHERE erased IS NOT NULL ORDER BY position",
            kind.name,
        )
        return ((at, last is not None and last >= at, bool(is_whole)) for at, last, is_whole in rows)

    def erasure_of(self, kind: Kind, position: int) -> tuple[int, int, str] | None:
        """The entry that says that a row's texts were erased."""
        found = self._all(
            "SELECT position, recorded_at, erased_by FROM erasure_log WHERE erased_kind = ? AND first_position <= ? "
            "AND last_position >= ? ORDER BY position LIMIT 1",
            kind.name,
            position,
            position,
        )
        return next(((entry, at, by) for entry, at, by in found), None)

    def with_texts_again(self, kind: Kind) -> Iterable[int]:
        """Positions of rows that have texts which an entry says were erased."""
        back = self._each(
            f"SELECT r.position FROM erasure_log e JOIN {kind.table} r "  # noqa: S608 - names of ours
            "ON r.position BETWEEN e.first_position AND e.last_position WHERE e.erased_kind = ? AND r.erased IS NULL",
            kind.name,
        )
        return (position for (position,) in back)

    def removed_sessions(self, limit: int) -> list[str]:
        """The ids of sessions that have revisions and are not there."""
        # the newest revision of all outlives its session in a prune
        gone = self._all(
            "SELECT DISTINCT l.id FROM session_log l WHERE l.position < (SELECT max(position) FROM session_log) "
            "AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.id = l.id AND s.recorded_by = l.recorded_by) LIMIT ?",
            limit,
        )
        return [id_ for (id_,) in gone]

    def changed_sessions(self, limit: int) -> list[str]:
        """The ids of sessions that are not what their last sealed revision says."""
        names = [name for name in leaf.BY_NAME["session"].columns if name not in {"position", "labels"}]
        alike = " AND ".join(f"s.{name} IS NOT DISTINCT FROM l.{name}" for name in names)
        labels, compared = self.compared.format(self.labels), self.compared.format
        counted = (
            "(SELECT count(*) FROM {} r WHERE r.session_id = s.id AND r.recorded_by = s.recorded_by "
            "AND r.source IN ('otlp', 'hook'))"
        )
        newest = (
            "coalesce((SELECT l.labels FROM session_log l WHERE l.id = s.id AND l.recorded_by = s.recorded_by "
            "ORDER BY l.position DESC LIMIT 1), '{}')"
        )
        changed = self._all(
            "SELECT s.id FROM sessions s WHERE NOT EXISTS (SELECT 1 FROM session_log l "  # noqa: S608 - names of ours
            f"WHERE l.id = s.id AND l.recorded_by = s.recorded_by AND {alike} AND {labels} = {compared('l.labels')}) "
            f"AND NOT (s.revision = 0 AND s.tool_calls >= {counted.format('tool_call_log')} "
            f"AND s.requests >= {counted.format('cost_log')} "
            "AND NOT EXISTS (SELECT 1 FROM session_log l WHERE l.id = s.id AND l.recorded_by = s.recorded_by "
            f"AND l.revision > 0) AND {labels} = {compared(newest)}) LIMIT ?",
            limit,
        )
        return [id_ for (id_,) in changed]
