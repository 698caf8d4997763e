"""All leaves of a log in one file, for an auditor: its root is computed from the lines, and is what was signed.

The first line is a JSON object with `checkpoint`, a signed note, and `cosigned`, notes that witnesses have signed. Each
other line is a leaf, in the order of the log. Of a row that is gone only its leaf's hash is known: `{"gone": KIND,
"position": "7", "hash": HEX}`. It is good where a later leaf, a removal or a restore, names the row.
"""

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import islice
from typing import Any

from audit_svc.errors import Damaged
from audit_svc.seal.errors import BadLog
from audit_svc.seal.history import Restore, Segments, segments
from audit_svc.seal.key_change import KeyChange
from audit_svc.seal.leaf import BY_NAME, canonical
from audit_svc.seal.ledger import SealedLedger
from audit_svc.seal.log import OWN, Index, Log, Run
from audit_svc.seal.outside.quorum import look
from audit_svc.seal.tiles import Tiles
from audit_svc.seal.verify import MAX_PROBLEMS, Report
from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.cosignature import Witness
from recording.transparency.errors import BadNote
from recording.transparency.note import Verifier, split_note

OnProgress = Callable[[int, int], None]
_TOLD_LEAVES = 50_000
_GONE = "gone"


def lines(ledger: SealedLedger, log: Log, note: str, cosigned: Sequence[str], on_progress: OnProgress) -> Iterator[str]:
    """The lines of an export, with their line breaks.

    Args:
        ledger: in one moment of it.
        log: the seal's.
        note: the newest checkpoint.
        cosigned: checkpoints that witnesses have signed.
        on_progress: called with how many of how many leaves are done.

    Raises:
        Damaged: a row is not what was sealed.
        BadLog: the log's own files are not what they were.
    """
    size = Checkpoint.parse(split_note(note)[0]).size
    tiles = Tiles(log, size)
    yield canonical_line({"checkpoint": note, "cosigned": list(cosigned)})
    done = 0
    with closing(log.index()) as index:
        known, _ = segments(index, size)
        for run in index.runs():
            if run.first_index != done:
                break
            run = run._replace(rows=min(run.rows, size - done))
            for place, said in enumerate(_leaves(ledger, index, run, known.get(run.kind))):
                sealed = tiles.leaf(run.first_index + place)
                position = run.first_position + place
                if said is None:
                    yield canonical_line({_GONE: run.kind, "position": str(position), "hash": sealed.hex()})
                elif tree.leaf_hash(said.encode()) == sealed:
                    yield f"{said}\n"
                else:
                    raise Damaged(
                        f"the {run.kind} at position {position} is not what was sealed: see `audit-svc verify`"
                    )
                done += 1
                if done % _TOLD_LEAVES == 0 or done == size:
                    on_progress(done, size)
            if done == size:
                return
    if done < size:
        raise BadLog(f"the index does not say what leaf {done} is of")


def canonical_line(said: dict[str, Any]) -> str:
    """A JSON object as a line."""
    return f"{canonical(said).decode()}\n"


def _leaves(ledger: SealedLedger, index: Index, run: Run, known: Segments | None) -> Iterator[str | None]:
    """What the leaves of a run are made of; None of a row that is gone."""
    positions = range(run.first_position, run.first_position + run.rows)
    if known is None:
        yield from (index.entry(position) for position in positions)
        return
    kind = BY_NAME[run.kind]
    rows = ledger.leaves_after(kind, positions.start - 1, positions.stop - 1)
    found = next(rows, None)
    for place, wanted in enumerate(positions):
        said = None
        if found and found[0] == wanted:
            # after a restore another row may have the position of one that was lost
            said = found[1].decode() if known.index_of(wanted) == run.first_index + place else None
            found = next(rows, None)
        yield said


def check(
    export: Iterable[str],
    log: Verifier,
    old: Sequence[tuple[str, Checkpoint]],
    witnesses: Sequence[Witness],
    quorum: int,
    on_progress: OnProgress,
) -> Report:
    """Checks an export with nothing but the log's key.

    Args:
        export: its lines, with their line breaks.
        log: the key.
        old: checkpoints that somebody kept, and where they are.
        witnesses: whose cosignatures are looked for.
        quorum: how many of them are needed.
        on_progress: called with how many of how many leaves are done.
    """
    report = Report()
    read = iter(export)
    try:
        head = json.loads(next(read, ""))
        note, cosigned = str(head["checkpoint"]), [str(each) for each in head["cosigned"]]
        report.checkpoint = checkpoint = Checkpoint.open(note, log)
    except BadNote as error:
        report.problems.append(str(error))
        return report
    except (ValueError, KeyError, TypeError, RecursionError):
        report.problems.append("it is not an export that `audit-svc export --format sealed` wrote")
        return report
    roots = dict.fromkeys([*_sizes(cosigned), *(kept.size for _, kept in old)], b"")
    grown, gone = _Grown(), _Gone()
    for line in read:
        index = grown.size
        if index in roots:
            roots[index] = grown.root()
        try:
            said = json.loads(line)
            if _GONE in said:
                grown.add(bytes.fromhex(said["hash"]))
                gone.add(str(said[_GONE]), int(said["position"]), index)
                continue
            grown.add(tree.leaf_hash(line.removesuffix("\n").encode()))
            if said["kind"] == OWN and KeyChange.parse(line):
                continue
            if said["kind"] == OWN:
                report.restores.append(gone.hear_restore(line, index))
            else:
                report.rows += 1
                gone.pass_by(said["kind"], int(said["position"]))
                if said["kind"] == "removal":
                    gone.hear_removal(said, index)
        except (ValueError, KeyError, TypeError, RecursionError, BadLog):
            report.problems.append(f"leaf {index} cannot be read, or does not belong behind the one before it")
            return report
        if grown.size % _TOLD_LEAVES == 0:
            on_progress(grown.size, checkpoint.size)
    roots[grown.size] = grown.root()
    if (grown.size, grown.root()) != (checkpoint.size, checkpoint.root):
        report.problems.append(
            f"its {grown.size} leaves are not the {checkpoint.size} that the checkpoint signs: some were changed, "
            "removed, added or put in another order"
        )
        return report
    gone.check(report)
    for path, kept in old:
        if kept.size > grown.size:
            report.problems.append(
                f"{path} tells of {kept.size} leaves, and the log has {grown.size}: it was rolled back"
            )
        elif roots[kept.size] != kept.root:
            report.problems.append(
                f"{path} tells of other leaves than the log's first {kept.size}: it was written anew"
            )
    seen = look([note, *cosigned], log, witnesses, quorum, roots.get)
    report.witnesses = seen.by
    report.problems += seen.problems
    return report


def _sizes(notes: Iterable[str]) -> Iterator[int]:
    for note in notes:
        with suppress(BadNote):
            yield Checkpoint.parse(split_note(note)[0]).size


class _Gone:
    """Rows that an export has only the hashes of, and what later leaves say of them."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[int, int]]] = defaultdict(list)
        """By kind, their positions and the indices of their leaves."""
        self._removed: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        self._lost: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        self._last: dict[str, int] = defaultdict(int)

    def add(self, kind: str, position: int, index: int) -> None:
        """A row that is gone. Raises ValueError: as pass_by()."""
        self.pass_by(kind, position)
        self.rows[kind].append((position, index))

    def pass_by(self, kind: str, position: int) -> None:
        """Raises ValueError: a row of the kind that comes later in the ledger came before it in the log."""
        if position <= self._last[kind]:
            raise ValueError
        self._last[kind] = position

    def hear_removal(self, said: dict[str, Any], index: int) -> None:
        """Raises ValueError, KeyError, TypeError: it is none."""
        self._removed[said["removed_kind"]].append((int(said["first_position"]), int(said["last_position"]), index))

    def hear_restore(self, said: str, index: int) -> Restore:
        """Raises BadLog: it is none."""
        restore = Restore.parse(said)
        for kind, kept in restore.kept.items():
            self._lost[kind].append((kept + 1, 2**63, index))
            self._last[kind] = min(self._last[kind], kept)
        return restore

    def check(self, report: Report) -> None:
        """Puts into the report what nothing says of why it is gone."""
        wrong: list[str] = []
        for kind, rows in self.rows.items():
            rows.sort()
            removed, lost = (_within(rows, ranges[kind]) for ranges in (self._removed, self._lost))
            report.removed += len(removed)
            unsaid = [(position, index) for position, index in rows if index not in removed | lost]
            wrong += [f"{kind} {position}, leaf {index}, is gone: no later leaf says why" for position, index in unsaid]
        report.problems += wrong[:MAX_PROBLEMS]
        if len(wrong) > MAX_PROBLEMS:
            report.problems.append(f"and {len(wrong) - MAX_PROBLEMS} more that are gone")


def _within(rows: list[tuple[int, int]], ranges: Iterable[tuple[int, int, int]]) -> set[int]:
    """The indices of rows, which are sorted, that stand in a range of positions that a later leaf names."""
    found: set[int] = set()
    for first, last, said in ranges:
        for position, index in islice(rows, bisect_left(rows, (first, 0)), None):
            if position > last:
                break
            if index < said:
                found.add(index)
    return found


class _Grown:
    """The root of leaves that come one by one."""

    def __init__(self) -> None:
        self.size = 0
        self._whole: list[bytes] = []
        """Of whole subtrees side by side, from the largest to the smallest."""

    def add(self, leaf: bytes) -> None:
        """A leaf's hash."""
        if len(leaf) != tree.HASH_BYTES:
            raise ValueError
        self.size += 1
        at = self.size
        while not at & 1:
            leaf = tree.node_hash(self._whole.pop(), leaf)
            at >>= 1
        self._whole.append(leaf)

    def root(self) -> bytes:
        """The root of those that came."""
        if not self._whole:
            return tree.EMPTY_ROOT
        found = self._whole[-1]
        for whole in reversed(self._whole[:-1]):
            found = tree.node_hash(whole, found)
        return found
