"""Verifies a ledger against its log: every row that was sealed is there as it was, and no row stands between them."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from audit_svc.ledger.side_by_side import side_by_side
from audit_svc.seal import leaf
from audit_svc.seal.compare import compare
from audit_svc.seal.errors import BadLog, SealError
from audit_svc.seal.folder import CHECKPOINT, read_checkpoint
from audit_svc.seal.history import Restore, Segments, segments
from audit_svc.seal.index import OWN, Index
from audit_svc.seal.key_change import KeyChange
from audit_svc.seal.leaf import KINDS, Kind
from audit_svc.seal.tiles import WIDTH, Tiles, split
from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.cosignature import Cosignature
from recording.transparency.errors import BadNote
from recording.transparency.note import Verifier

MAX_PROBLEMS = 20
"""Of each kind of row, in one report."""
_TOLD_ROWS = 50_000
OnProgress = Callable[[int, int], None]


@dataclass
class Report:
    """What was found."""

    checkpoint: Checkpoint | None = None
    compared: bool = True
    """Whether rows were compared with the log: they are not where the log itself is wrong."""
    rows: int = 0
    """Rows that are as they were sealed."""
    removed: int = 0
    """Rows that are gone, as a sealed removal says."""
    erased: int = 0
    """Rows that are as they were sealed, save for texts that were erased, as an entry says."""
    restores: list[Restore] = field(default_factory=list)
    key_changes: list[KeyChange] = field(default_factory=list)
    unsealed: dict[str, int] = field(default_factory=dict)
    """By kind, rows behind the last sealed one."""
    witnesses: list[tuple[Cosignature, int]] = field(default_factory=list)
    """Of those that were asked for, who has seen the log, each with the leaves of the checkpoint that it signed."""
    problems: list[str] = field(default_factory=list)
    """What was changed, removed or added, by kind and position; empty where nothing was."""

    @property
    def lost(self) -> int:
        """Rows that restores lost."""
        return sum(sum(restore.lost.values()) for restore in self.restores)


def verify(
    ledger: apsw.Connection,
    folder: Path,
    verifier: Verifier,
    old_checkpoints: list[Path],
    on_progress: OnProgress = lambda done, total: None,
) -> Report:
    """Verifies all.

    Args:
        ledger: a connection that reads one moment of it, see leaf.prepare().
        folder: of the seal.
        verifier: the log's key, from somewhere else than the folder.
        old_checkpoints: files with checkpoints of the same log that somebody kept.
        on_progress: called with how many of how many leaves are done.

    Raises:
        SealError: there is nothing that could be verified.
    """
    report, tiles = verify_tiles(folder, verifier, [])
    if tiles is None:
        return report
    try:
        with closing(Index(folder)) as index:
            known, restores = segments(index, tiles.size)
            report.restores = [restore for _, restore in restores]
            _check_entries(index, tiles)
            said = [KeyChange.parse(leaf) for _, leaf in index.entries(tiles.size)]
        report.key_changes = [change for change in said if change]
        # what was signed before a rotation is of the key that the log says was its own then
        before = [Verifier.parse(change.old) for change in report.key_changes]
        report.problems += _check_old(tiles, old_checkpoints, [verifier, *before])
    except BadLog as error:
        report.problems.append(str(error))
        return report
    except apsw.Error as error:
        report.problems.append(f"{folder}/index.db cannot be read ({error}): it was changed, or is missing")
        return report
    report.compared = True
    progress = _Progress(on_progress, sum(map(len, known.values())))
    missing: dict[str, list[int]] = {}
    for kind in KINDS:
        missing[kind.name] = _check_rows(ledger, kind, known[kind.name], tiles, report, progress)
    _check_missing(ledger, known, missing, report)
    for kind in leaf.HASHED:
        _check_erased(ledger, kind, report)
    report.problems += _check_sessions(ledger)
    return report


def verify_tiles(
    folder: Path, verifier: Verifier, old_checkpoints: list[Path], on_progress: OnProgress = lambda done, total: None
) -> tuple[Report, Tiles | None]:
    """Verifies the log without the ledger, as anybody can who has its tiles; they are None where they do not fit.

    The arguments, and what it raises, are those of verify().
    """
    report = Report(compared=False)
    try:
        report.checkpoint, _ = read_checkpoint(folder / CHECKPOINT, verifier)
        tiles = Tiles(folder, report.checkpoint.size)
        check_tiles(tiles, report.checkpoint, on_progress)
        report.problems += _check_old(tiles, old_checkpoints, [verifier])
    except FileNotFoundError:
        raise SealError(f"{folder} has no checkpoint: nothing is sealed there") from None
    except (BadNote, BadLog) as error:
        report.problems.append(str(error))
        return report, None
    return report, tiles


def check_tiles(tiles: Tiles, checkpoint: Checkpoint, on_progress: OnProgress = lambda done, total: None) -> None:
    """All hashes above the leaves, each from those below it, and the root. Raises BadLog."""
    level = 0
    while above := checkpoint.size >> 8 * (level + 1):
        for n in range(above):
            if tree.fold(split(tiles.tile(level, n))) != tiles.subtree(8 * (level + 1), n):
                raise BadLog(f"tile {n} of level {level} is not what the tile above says: it was changed")
            if level == 0:
                on_progress((n + 1) * WIDTH, checkpoint.size)
        level += 1
    if tiles.root() != checkpoint.root:
        raise BadLog("the tiles are not those that the checkpoint signs: one of them was changed")


def _check_old(tiles: Tiles, paths: list[Path], verifiers: list[Verifier]) -> Iterator[str]:
    for path in paths:
        try:
            old = _read_old(path, verifiers)
        except FileNotFoundError:
            raise SealError(f"{path} is not there") from None
        except (BadLog, BadNote) as error:
            yield f"an old checkpoint cannot be used: {error}"
            continue
        if old.size > tiles.size:
            yield f"{path} tells of {old.size} leaves, and the log has {tiles.size}: it was rolled back"
        elif tiles.root(old.size) != old.root:
            yield f"{path} tells of other leaves than the log's first {old.size}: it was written anew"


def _read_old(path: Path, verifiers: list[Verifier]) -> Checkpoint:
    *others, last = verifiers[::-1]
    for verifier in others:
        with suppress(BadNote):
            return read_checkpoint(path, verifier)[0]
    return read_checkpoint(path, last)[0]


def _check_entries(index: Index, tiles: Tiles) -> None:
    for run in index.runs():
        if run.kind != OWN or run.first_index >= tiles.size:
            continue
        for place in range(run.rows):
            said = index.entry(run.first_position + place)
            if tree.leaf_hash(said.encode()) != tiles.leaf(run.first_index + place):
                raise BadLog(f"the entry at leaf {run.first_index + place} is not what was sealed")


class _Progress:
    def __init__(self, tell: OnProgress, total: int) -> None:
        self._tell, self._total, self._done = tell, total, 0

    def add(self, rows: int) -> None:
        before, self._done = self._done, self._done + rows
        if before // _TOLD_ROWS < self._done // _TOLD_ROWS or self._done == self._total:
            self._tell(self._done, self._total)


def _check_rows(
    ledger: apsw.Connection, kind: Kind, known: Segments, tiles: Tiles, report: Report, progress: _Progress
) -> list[int]:
    """Compares all rows of a kind, and returns the positions of those that are not there."""
    column, last = kind.column("position"), known.last_position
    rows: Any = ledger.execute(kind.select_hashed(f"{column} <= ?"), (last,))
    others = _Rows(ledger, kind)
    found = compare(kind.name, rows, known, tiles, lambda position: kind.encode(others.row(position)), progress.add)
    report.rows += found.rows
    report.problems += _some(found.problems, kind.name)
    unsealed: Any = ledger.execute(f"SELECT count(*) FROM {kind.table} WHERE {column} > ?", (last,)).fetchone()  # noqa: S608 - names of ours
    if unsealed[0]:
        report.unsealed[kind.name] = unsealed[0]
    return found.missing


class _Rows:
    """Rows of a kind, one by one, as columns."""

    def __init__(self, ledger: apsw.Connection, kind: Kind) -> None:
        self._names = [*kind.columns, *(leaf.BESIDE if kind.hashed else ())]
        self._ledger = ledger
        self._select = f"SELECT {', '.join(self._names)} FROM {kind.table} WHERE {kind.column('position')} = ?"  # noqa: S608 - names of ours

    def row(self, position: int) -> dict[str, Any]:
        found: Any = self._ledger.execute(self._select, (position,)).fetchone()
        return dict(zip(self._names, found, strict=True))


def _check_missing(
    ledger: apsw.Connection, known: dict[str, Segments], missing: dict[str, list[int]], report: Report
) -> None:
    """A row may be gone where a removal that is sealed behind it names it."""
    removals: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
    rows: Any = ledger.execute("SELECT position, removed_kind, first_position, last_position FROM removal_log")
    for position, kind, first, last in rows:
        index = known["removal"].index_of(position)
        # one that is not sealed yet is of this moment, and told as unsealed
        removals[kind].append((first, last, report.checkpoint.size if index is None else index))  # type: ignore[union-attr]
    for kind, positions in missing.items():
        if not positions:
            continue
        named = _positions_of(removals[kind], known[kind])
        gone = [position for position in positions if position not in named]
        report.removed += len(positions) - len(gone)
        told = [
            f"{kind} {first} to {last} were sealed and are not there: removed"
            if last > first
            else f"{kind} {first} was sealed and is not there: removed"
            for first, last in side_by_side(gone)
        ]
        report.problems += _some(told, kind)


def _positions_of(removals: list[tuple[int, int, int]], known: Segments) -> set[int]:
    named: set[int] = set()
    for first, last, index in removals:
        for position in range(first, last + 1):
            leaf_index = known.index_of(position)
            if leaf_index is not None and leaf_index < index:
                named.add(position)
    return named


def _check_erased(ledger: apsw.Connection, kind: Kind, report: Report) -> None:
    """Texts may be erased where an entry says so, and where one says so they are."""
    named = (
        "(SELECT last_position FROM erasure_log WHERE erased_kind = ?1 AND first_position <= r.position "
        "ORDER BY first_position DESC LIMIT 1)"
    )
    rows: Any = ledger.execute(
        f"SELECT position, coalesce({named} >= position, 0), salt IS NULL FROM {kind.table} r "  # noqa: S608 - names of ours
        "WHERE erased IS NOT NULL ORDER BY position",
        (kind.name,),
    )
    problems = []
    for position, is_named, is_whole in rows:
        if not is_named:
            problems.append(f"{kind.name} {position} has no texts, and no entry says that they were erased: removed")
        elif not is_whole:
            problems.append(f"{kind.name} {position} has a salt, though its texts were erased: it was changed")
        else:
            report.erased += 1
    back: Any = ledger.execute(
        f"SELECT r.position FROM erasure_log e JOIN {kind.table} r "  # noqa: S608 - names of ours
        "ON r.position BETWEEN e.first_position AND e.last_position WHERE e.erased_kind = ? AND r.erased IS NULL",
        (kind.name,),
    )
    problems += [f"{kind.name} {position} has texts, and an entry says that they were erased" for (position,) in back]
    report.problems += _some(problems, kind.name)


def _check_sessions(ledger: apsw.Connection) -> list[str]:
    """What questions are answered from is what was sealed last of each session.

    A session that the ledger sums up has revision 0, the labels that were sealed last, and at least as much as its
    rows: some may be pruned.
    """
    session = leaf.BY_NAME["session"]
    names = [name for name in session.columns if name not in {"position", "labels"}]
    alike = " AND ".join(f"s.{name} IS l.{name}" for name in names)
    labels = (
        "(SELECT coalesce(json_group_object(key, value), '{}') FROM (SELECT key, value FROM session_labels x "
        "WHERE x.session_id = s.id AND x.recorded_by = s.recorded_by ORDER BY key))"
    )
    counted = (
        "(SELECT count(*) FROM {} r WHERE r.session_id = s.id AND r.recorded_by = s.recorded_by "
        "AND r.source IN ('otlp', 'hook'))"
    )
    rows: Any = ledger.execute(
        "SELECT s.id FROM sessions s WHERE NOT EXISTS (SELECT 1 FROM session_log l "  # noqa: S608 - names of ours
        f"WHERE l.id = s.id AND l.recorded_by = s.recorded_by AND {alike} AND json({labels}) = json(l.labels)) "
        f"AND NOT (s.revision = 0 AND s.tool_calls >= {counted.format('tool_call_log')} "
        f"AND s.requests >= {counted.format('cost_log')} "
        "AND NOT EXISTS (SELECT 1 FROM session_log l WHERE l.id = s.id AND l.recorded_by = s.recorded_by "
        "AND l.revision > 0) "
        f"AND json({labels}) = json(coalesce((SELECT l.labels FROM session_log l WHERE l.id = s.id "
        "AND l.recorded_by = s.recorded_by ORDER BY l.position DESC LIMIT 1), '{}'))) LIMIT ?",
        (MAX_PROBLEMS,),
    )
    changed = [
        f"session {id_!r} is not what its last sealed revision or its rows say: it was changed" for (id_,) in rows
    ]
    # the newest revision of all outlives its session in a prune
    gone: Any = ledger.execute(
        "SELECT DISTINCT l.id FROM session_log l WHERE l.position < (SELECT max(position) FROM session_log) "
        "AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.id = l.id AND s.recorded_by = l.recorded_by) LIMIT ?",
        (MAX_PROBLEMS,),
    )
    return changed + [f"session {id_!r} has sealed revisions and is not there: it was removed" for (id_,) in gone]


def _some(problems: list[str], what: str) -> list[str]:
    more = len(problems) - MAX_PROBLEMS
    return [*problems[:MAX_PROBLEMS], *([f"and {more} more of the kind {what}"] if more > 0 else [])]
