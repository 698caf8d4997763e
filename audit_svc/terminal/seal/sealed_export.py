"""export --format sealed, and verify --export."""

from collections.abc import Callable
from pathlib import Path
from typing import IO

from audit_svc.seal.errors import BadLog, SealError
from audit_svc.seal.folder import newest_checkpoint, own_verifier, read_checkpoint
from audit_svc.seal.outside.cosigned import cosigned_by_all
from audit_svc.seal.sealed_export import check, lines
from audit_svc.seal.verify import Report
from audit_svc.terminal.running import error_is_exit_code_1
from audit_svc.terminal.seal.place import where
from recording.transparency.cosignature import Witness
from recording.transparency.errors import BadNote
from recording.transparency.note import Verifier


def write(db: Path | None, file: IO[str], on_progress: Callable[[int, int], None]) -> None:
    """Writes all leaves of a ledger's log. Raises Exit."""
    found = where(db, None)
    with error_is_exit_code_1(), found.reading() as ledger:
        found.refuse_unsealed("such an export needs it beside the database")
        key = own_verifier(found.log)
        _, note = newest_checkpoint(found.log, key)
        file.writelines(lines(ledger, found.log, note, cosigned_by_all(found.log, key), on_progress))
        file.flush()


def verify(
    path: Path,
    log: Verifier,
    old_checkpoints: list[Path],
    witnesses: list[Witness],
    quorum: int,
    on_progress: Callable[[int, int], None],
) -> Report:
    """Checks an export. Raises SealError: it, or an old checkpoint, cannot be read."""
    problems: list[str] = []
    old = []
    for kept in old_checkpoints:
        try:
            old.append((str(kept), read_checkpoint(kept, log)[0]))
        except FileNotFoundError:
            raise SealError(f"{kept} is not there") from None
        except (BadLog, BadNote) as error:
            problems.append(f"an old checkpoint cannot be used: {error}")
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            report = check(file, log, old, witnesses, quorum, on_progress)
    except OSError as error:
        raise SealError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        report = Report(problems=[f"{path} is not an export: it is not UTF-8"])
    report.problems += problems
    return report
