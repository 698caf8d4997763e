"""The index of a log in a store's tables, in the SQL that both stores take: see log.Index."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from audit_svc.seal.log import OWN, Run

_ALL = 2**62
_RUNS = "SELECT * FROM {runs}"
_RUNS_AT_ONCE = 10_000


class SqlIndex:
    """A store's own class reads and writes, in tables with a prefix of its own."""

    prefix = ""

    def _read(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """The rows of a statement."""
        raise NotImplementedError

    def _write(self, sql: str, many: Iterable[Sequence[object]]) -> None:
        """Runs a statement for each of many."""
        raise NotImplementedError

    def forget_from(self, index: int) -> None:
        """Forgets leaves from an index on."""
        self._run("DELETE FROM {runs} WHERE first_index >= ?", [(index,)])
        self._run("UPDATE {runs} SET rows = ?1 - first_index WHERE first_index + rows > ?1", [(index,)])
        # an entry has a run of its own
        self._run(
            "DELETE FROM {entries} WHERE position > "
            "(SELECT coalesce(max(first_position + rows - 1), 0) FROM {runs} WHERE kind = ?)",
            [(OWN,)],
        )

    def add(self, run: Run) -> None:
        """Adds a run, to the last one where it goes on with it."""
        last = self.last()
        if last and last[1:3] == run[1:3] and last.last_position + 1 == run.first_position:
            self._run("UPDATE {runs} SET rows = rows + ? WHERE first_index = ?", [(run.rows, last.first_index)])
        else:
            self._run("INSERT INTO {runs} VALUES (?, ?, ?, ?, ?)", [run])

    def add_entry(self, leaf: str, index: int) -> None:
        """Adds a leaf of the seal itself."""
        ((position,),) = self._ask("SELECT coalesce(max(position), 0) + 1 FROM {entries}")
        self._run("INSERT INTO {entries} VALUES (?, ?)", [(position, leaf)])
        self.add(Run(index, OWN, 1, position, 1))

    def entries(self, size: int, limit: int | None = None) -> list[tuple[int, str]]:
        """The newest leaves of the seal itself among the first size leaves, the oldest first, with their indices."""
        found = self._ask(
            "SELECT r.first_index + e.position - r.first_position, e.leaf FROM {entries} e "
            "JOIN {runs} r ON r.kind = ? AND e.position >= r.first_position "
            "AND e.position < r.first_position + r.rows "
            "WHERE r.first_index + e.position - r.first_position < ? ORDER BY e.position DESC LIMIT ?",
            (OWN, size, _ALL if limit is None else limit),
        )
        return [(int(index), str(leaf)) for index, leaf in found][::-1]

    def entry(self, position: int) -> str:
        """A leaf of the seal itself; empty where there is none."""
        found = self._ask("SELECT leaf FROM {entries} WHERE position = ?", (position,))
        return str(found[0][0]) if found else ""

    def note_producers(self, highest: Mapping[tuple[str, str], int]) -> None:
        """Notes the highest number that came of producers."""
        self._run(
            "INSERT INTO {producers} VALUES (?, ?, ?) "
            "ON CONFLICT (id, recorded_by) DO UPDATE SET highest_sequence = excluded.highest_sequence",
            [(*producer, number) for producer, number in highest.items()],
        )

    def producers(self) -> dict[tuple[str, str], int]:
        """The highest number that came of each producer."""
        found = self._ask("SELECT id, recorded_by, highest_sequence FROM {producers}")
        return {(str(id_), str(name)): int(number) for id_, name, number in found}

    def last(self) -> Run | None:
        """The run of the last leaf."""
        return self._one("ORDER BY first_index DESC LIMIT 1")

    def size(self) -> int:
        """How many leaves it knows."""
        last = self.last()
        return last.first_index + last.rows if last else 0

    def runs(self) -> Iterator[Run]:
        """All, in the order of the log."""
        after = -1
        while found := self._ask(
            "SELECT * FROM {runs} WHERE first_index > ? ORDER BY first_index LIMIT ?", (after, _RUNS_AT_ONCE)
        ):
            yield from map(Run._make, found)
            after = found[-1][0]

    def last_of(self, kind: str, size: int) -> Run | None:
        """The run that was added last of a kind, as far as it is among the first size leaves."""
        run = self._one("WHERE kind = ? AND first_index < ? ORDER BY first_index DESC LIMIT 1", kind, size)
        return run and run._replace(rows=min(run.rows, size - run.first_index))

    def find(self, kind: str, position: int, size: int) -> int | None:
        """The index of a row's leaf among the first size, the last where it has several; None where it has none."""
        run = self._one(
            "WHERE kind = ?1 AND first_position <= ?2 AND first_position + rows > ?2 "
            "AND first_index + ?2 - first_position < ?3 ORDER BY first_index DESC LIMIT 1",
            kind,
            position,
            size,
        )
        return run.first_index + position - run.first_position if run else None

    def _one(self, rest: str, *values: object) -> Run | None:
        found = self._ask(f"{_RUNS} {rest}", values)
        return Run._make(found[0]) if found else None

    def _ask(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        return self._read(self._named(sql), values)

    def _run(self, sql: str, many: Iterable[Sequence[object]]) -> None:
        self._write(self._named(sql), many)

    def _named(self, sql: str) -> str:
        return sql.format(**{name: self.prefix + name for name in ("runs", "entries", "producers")})
