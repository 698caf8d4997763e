"""Verifies a ledger against its log: every row that was sealed is there as it was, and no row stands between them."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from audit_svc.ledger.side_by_side import side_by_side
from audit_svc.seal import leaf
from audit_svc.seal.compare import compare
from audit_svc.seal.errors import BadLog, SealError
from audit_svc.seal.folder import newest_checkpoint, read_checkpoint
from audit_svc.seal.history import Restore, Segments, segments
from audit_svc.seal.key_change import KeyChange
from audit_svc.seal.leaf import KINDS, Kind
from audit_svc.seal.ledger import SealedLedger
from audit_svc.seal.log import OWN, Files, Index, Log
from audit_svc.seal.outside.stamps import Stamp
from audit_svc.seal.short_reads import leaves_in_parts
from audit_svc.seal.tiles import WIDTH, Tiles, split
from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.cosignature import Cosignature
from recording.transparency.errors import BadNote
from recording.transparency.note import Verifier

MAX_PROBLEMS = 20
"""Of each kind of row, in one report."""
_TOLD_ROWS = 50_000
_FIRST = -(2**63)
"""Before all positions: a row that somebody added may have any."""
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
    stamps: list[Stamp] = field(default_factory=list)
    """By an authority that was asked for, when the log had how many leaves, the oldest first."""
    unchecked_stamps: int = 0
    """Time-stamps that are kept, where no authority was asked for."""
    problems: list[str] = field(default_factory=list)
    """What was changed, removed or added, by kind and position; empty where nothing was."""

    @property
    def lost(self) -> int:
        """Rows that restores lost."""
        return sum(sum(restore.lost.values()) for restore in self.restores)


def verify(
    ledger: SealedLedger,
    log: Log,
    verifier: Verifier,
    old_checkpoints: list[Path],
    on_progress: OnProgress = lambda done, total: None,
) -> Report:
    """Verifies all.

    Args:
        ledger: in no moment, so that it may be written to meanwhile, however long it takes.
        log: the seal's.
        verifier: the log's key, from somewhere else than beside it.
        old_checkpoints: files with checkpoints of the same log that somebody kept.
        on_progress: called with how many of how many leaves are done.

    Raises:
        SealError: there is nothing that could be verified.
    """
    report, tiles = verify_tiles(log, verifier, [])
    if tiles is None:
        return report
    try:
        with closing(log.index()) as index:
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
    report.compared = True
    behind = {kind.name: ledger.count_after(kind, known[kind.name].last_position) for kind in KINDS}
    report.unsealed = {kind: rows for kind, rows in behind.items() if rows}
    progress = _Progress(on_progress, sum(map(len, known.values())))
    missing: dict[str, list[int]] = {}
    for kind in KINDS:
        missing[kind.name] = _check_rows(ledger, kind, known[kind.name], tiles, report, progress)
    with ledger.moment():
        _check_missing(ledger, known, missing, report)
    for kind in leaf.HASHED:
        with ledger.moment():
            _check_erased(ledger, kind, report)
    report.problems += _check_sessions(ledger)
    return report


def verify_tiles(
    log: Files, verifier: Verifier, old_checkpoints: list[Path], on_progress: OnProgress = lambda done, total: None
) -> tuple[Report, Tiles | None]:
    """Verifies the log without the ledger, as anybody can who has its tiles; they are None where they do not fit.

    The arguments, and what it raises, are those of verify().
    """
    report = Report(compared=False)
    try:
        report.checkpoint, _ = newest_checkpoint(log, verifier)
        tiles = Tiles(log, report.checkpoint.size)
        check_tiles(tiles, report.checkpoint, on_progress)
        report.problems += _check_old(tiles, old_checkpoints, [verifier])
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
    ledger: SealedLedger, kind: Kind, known: Segments, tiles: Tiles, report: Report, progress: _Progress
) -> list[int]:
    """Compares all rows of a kind, and returns the positions of those that are not there."""

    def encode_again(position: int) -> bytes | None:
        try:
            return kind.encode(ledger.row(kind, position))
        except KeyError:  # a prune has removed it meanwhile
            return None

    rows = leaves_in_parts(ledger, kind, _FIRST, known.last_position)
    found = compare(kind.name, rows, known, tiles, encode_again, progress.add)
    report.rows += found.rows
    report.problems += _some(found.problems, kind.name)
    return found.missing


def _check_missing(
    ledger: SealedLedger, known: dict[str, Segments], missing: dict[str, list[int]], report: Report
) -> None:
    """A row may be gone where a removal that is sealed behind it names it."""
    removals: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
    unsealed = 0
    for position, kind, first, last in ledger.removals():
        index = known["removal"].index_of(position)
        # one that is not sealed yet is of this moment, and told as unsealed
        unsealed += index is None
        removals[kind].append((first, last, report.checkpoint.size if index is None else index))  # type: ignore[union-attr]
    if unsealed:
        report.unsealed["removal"] = unsealed
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


def _check_erased(ledger: SealedLedger, kind: Kind, report: Report) -> None:
    """Texts may be erased where an entry says so, and where one says so they are."""
    problems = []
    for position, is_named, is_whole in ledger.erased(kind):
        if not is_named:
            problems.append(f"{kind.name} {position} has no texts, and no entry says that they were erased: removed")
        elif not is_whole:
            problems.append(f"{kind.name} {position} has a salt, though its texts were erased: it was changed")
        else:
            report.erased += 1
    back = ledger.with_texts_again(kind)
    problems += [f"{kind.name} {position} has texts, and an entry says that they were erased" for position in back]
    report.problems += _some(problems, kind.name)


def _check_sessions(ledger: SealedLedger) -> list[str]:
    """What questions are answered from is what was sealed last of each session."""
    changed = ledger.changed_sessions(MAX_PROBLEMS)
    removed = ledger.removed_sessions(MAX_PROBLEMS)
    return [
        *(f"session {id_!r} is not what its last sealed revision or its rows say: it was changed" for id_ in changed),
        *(f"session {id_!r} has sealed revisions and is not there: it was removed" for id_ in removed),
    ]


def _some(problems: list[str], what: str) -> list[str]:
    more = len(problems) - MAX_PROBLEMS
    return [*problems[:MAX_PROBLEMS], *([f"and {more} more of the kind {what}"] if more > 0 else [])]
