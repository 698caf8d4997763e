"""The check after a round: what the producers' journal says, against what the database holds."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

GAP = "onrecord.gap"
CALLS = "SELECT id, provider_call_id, outcome, tool_name, args_summary FROM tool_call_log"
COSTS = "SELECT id FROM cost_log"


@dataclass(frozen=True)
class Journal:
    """What the producers of a round did, by ids."""

    intended: frozenset[str]
    accepted: frozenset[str]
    dropped: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> "Journal":
        """Reads what producers wrote; a last line that a kill has cut short does not count."""
        text = path.read_text() if path.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()
        return cls(*(frozenset(line[2:] for line in lines if line[0] == kind) for kind in "iad"))


@dataclass
class Findings:
    """What a round comes to. All is well when problems is empty."""

    accepted: int = 0
    lost: int = 0
    """Accepted rows that are not in the database as they were recorded, and refused rows that no gap row tells."""
    doubled: int = 0
    """Rows that are there more than once."""
    corrupt: int = 0
    """Failed integrity checks, and rows that nobody intended."""
    two_writers: int = 0
    """Commits under an epoch that belongs to another replica, or after a later one began."""
    unsealed: int = 0
    """Rows that are not in the log after three minutes of rest; not counted of replicas."""
    late: int = 0
    """1 where some were not after a second."""
    compared: int = 0
    """Answers of the audit service's health that were compared with the truth."""
    untrue: int = 0
    """Those that were not true."""
    problems: list[str] = field(default_factory=list)

    def report(self, kind: str, what: Iterable[str]) -> None:
        """Counts each of what as lost, doubled, corrupt or untrue."""
        found = sorted(what)
        if found:
            setattr(self, kind, getattr(self, kind) + len(found))
            self.problems.append(f"{kind}: {len(found)}, such as {', '.join(found[:3])}")


def examine(database: Path, journal: Journal, destroyed: frozenset[str] = frozenset()) -> Findings:
    """Compares them. destroyed: ids of accepted rows whose spooled bytes the round has damaged itself.

    Nothing may have the database open.
    """
    findings = Findings(accepted=len(journal.accepted))
    try:
        connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            _examine(connection, journal, destroyed, findings)
        finally:
            connection.close()
    except apsw.Error as error:
        findings.report("corrupt", [str(error)])
    return findings


def _examine(db: apsw.Connection, journal: Journal, destroyed: frozenset[str], findings: Findings) -> None:
    integrity = [str(row[0]) for row in db.execute("PRAGMA integrity_check")]
    if integrity != ["ok"]:
        findings.report("corrupt", integrity)
    calls = list(db.execute(f"{CALLS} NOT INDEXED"))
    costs = [row_id for (row_id,) in db.execute(f"{COSTS} NOT INDEXED")]
    compare(calls, costs, journal, findings, destroyed)


def compare(
    calls: list[Any], costs: list[str], journal: Journal, findings: Findings, destroyed: frozenset[str] = frozenset()
) -> None:
    """Compares the rows that CALLS and COSTS give, and the journal."""
    gaps = [json.loads(call[4]) for call in calls if call[3] == GAP]
    calls = [call for call in calls if call[3] != GAP]

    # The producer's own provider_call_id shows a call that is there under two ids.
    times = Counter([call[0] for call in calls] + costs)
    calls_told = Counter(call[1] for call in calls if call[1])
    findings.report("doubled", {row for row, count in (times | calls_told).items() if count > 1})
    findings.report("corrupt", (f"{row}, which nobody intended" for row in times.keys() - journal.intended))
    whole = {call[0] for call in calls if call[2] == "succeeded"} | set(costs)
    findings.report("lost", journal.accepted - destroyed - whole)
    told = sum(gap["tool_calls"] + gap["model_requests"] for gap in gaps)
    untold = max(0, len(journal.dropped - times.keys()) - told)
    findings.report("lost", (f"refused row {n + 1} without a gap row" for n in range(untold)))
