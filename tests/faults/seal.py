"""The seal of a round's ledger: what it still has to take, and whether it fits in the end."""

from contextlib import closing
from pathlib import Path

from audit_svc.errors import AuditError
from audit_svc.seal.folder import VERIFIER, folder_of, newest_checkpoint, own_verifier, read_verifier
from audit_svc.seal.history import History
from audit_svc.seal.leaf import KINDS
from audit_svc.seal.tiles import Tiles
from audit_svc.seal.verify import verify
from audit_svc.sealing.places import FolderPlace
from recording.transparency.errors import TransparencyError
from tests.faults.ledger import Findings


def is_sealed(database: Path) -> bool:
    """Whether all rows of a ledger are sealed, beside the running service."""
    place = FolderPlace(database, folder_of(database))
    try:
        log = place.open_log()
        checkpoint, _ = newest_checkpoint(log, own_verifier(log))
        with closing(place.open_ledger()) as ledger, closing(log.index()) as index:
            history = History(ledger, index, Tiles(log, checkpoint.size))
            return not any(ledger.count_after(kind, history.last_sealed(kind)[0]) for kind in KINDS)
    except (AuditError, TransparencyError):  # it is not begun yet, or just written to
        return False


def judge_seal(database: Path, findings: Findings) -> None:
    """Verifies a ledger whose service has ended."""
    folder = folder_of(database)
    place = FolderPlace(database, folder)
    try:
        with closing(place.open_ledger()) as ledger:
            report = verify(ledger, place.open_log(), read_verifier(str(folder / VERIFIER)), [])
    except (AuditError, TransparencyError) as error:
        findings.report("corrupt", [str(error)])
        return
    findings.report("corrupt", report.problems)
    # A question is written half a second after its answer, so the last one perhaps after all was sealed. is_sealed()
    # counts them: one that is never sealed makes the round late.
    unsealed = {kind: rows for kind, rows in report.unsealed.items() if kind != "query"}
    findings.unsealed += sum(unsealed.values())
    if unsealed:
        findings.problems.append(f"unsealed: {unsealed}")
    if not report.rows:
        findings.report("lost", ["a seal without rows shows nothing"])
