"""What applications say that they did, against what the ledger says."""

from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import apsw

from tests.faults.ledger import Findings


@dataclass(frozen=True)
class Told:
    """What the applications of a round wrote into their journal, by kind."""

    lines: list[tuple[str, str]]

    @classmethod
    def read(cls, path: Path) -> "Told":
        """Reads it; all whole lines."""
        text = path.read_text() if path.exists() else ""
        return cls([(line[0], line[2:]) for line in text[: text.rfind("\n") + 1].splitlines()])

    def count(self, kind: str) -> int:
        """How many there are of a kind."""
        return sum(kind == of for of, _ in self.lines)

    def ids(self, kind: str) -> set[str]:
        """What they are about."""
        return {what for of, what in self.lines if of == kind}


def look(database: Path, told: Told, findings: Findings) -> None:
    """Reports calls that are there twice, whatever their ids, and intents that never ended and are not told so."""
    with closing(apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)) as db:
        rows = list(db.execute("SELECT id, outcome, turn_id FROM tool_call_log NOT INDEXED WHERE turn_id != ''"))
    outcomes = {row[0]: row[1] for row in rows}
    findings.report("doubled", (turn for turn, count in Counter(row[2] for row in rows).items() if count > 1))
    never_ended = told.ids("b") - told.ids("e")
    findings.report(
        "lost",
        (f"{call} never ended: {outcomes.get(call)}" for call in never_ended if outcomes.get(call) != "interrupted"),
    )
    ended = told.ids("e") - told.ids("a")
    findings.report("lost", (f"{call} ended, and its intent is not there" for call in ended - outcomes.keys()))
