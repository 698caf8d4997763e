"""copy."""

from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from audit_svc.sealing.places import POSTGRES
from audit_svc.terminal.running import error_is_exit_code_1, progress, say_unseen
from service_kit.terminal.command import BadParameter, Option
from service_kit.terminal.printing import Json, Printer, print_fields

if TYPE_CHECKING:
    from audit_svc.copying.ends import End


out = Printer()


def copy(
    source: Annotated[str, Option("--from", help="A database file, or postgresql://user@host:5432/database.")],
    target: Annotated[str, Option("--to", help="As --from: an empty database, or a file that is not there.")],
    seal: Annotated[Path | None, Option("--seal", help="The folder of the file's seal; FILE.seal by default.")] = None,
    as_json: Json = False,
) -> None:
    """Copy a ledger that no service has open, with its positions and its seal, and verify it; asked again it goes on.

    The signing key stays where it is: give it to the new service as a file.
    """
    if not (source.startswith(POSTGRES) or target.startswith(POSTGRES)):
        raise BadParameter("one of both is a database of PostgreSQL; a file is copied by `audit-svc backup`", "--to")
    if seal and source.startswith(POSTGRES) and target.startswith(POSTGRES):
        raise BadParameter("is of a file: leave it out", "--seal")
    from audit_svc.copying.copy import copy_ledger

    with error_is_exit_code_1(), progress("copying") as on_progress, ExitStack() as opened:
        ends = [opened.enter_context(end) for end in (_source(source, seal), _target(target, seal))]
        leaves = copy_ledger(ends[0], ends[1], lambda copied: on_progress(copied.rows, 0))
    if as_json:
        print_fields({"copied": True, "leaves_verified": leaves})
        return
    out.print(
        f"copied; counts and sums are alike, and {leaves} leaves of the seal were verified from the rows that came"
    )
    if leaves:
        out.print("the signing key was not copied: put its file where the new service's AUDIT_SEAL_KEY_FILE names it")


def _source(place: str, seal: Path | None) -> "AbstractContextManager[End]":
    if place.startswith(POSTGRES):
        from audit_svc.copying.postgres import source_database

        return source_database(place)
    from audit_svc.copying.ends import source_file

    return source_file(Path(place), seal, say_unseen)


def _target(place: str, seal: Path | None) -> "AbstractContextManager[End]":
    if place.startswith(POSTGRES):
        from audit_svc.copying.postgres import target_database

        return target_database(place)
    from audit_svc.copying.ends import target_file

    return target_file(Path(place), seal)
