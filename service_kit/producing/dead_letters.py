"""Commands on the rows that the ledger refused. They work on the state directory, beside a running service or without.

A service that runs on the same directory takes what is sent again within half a minute; else the next start does. In
all of them, `variable` is the setting that names the directory, and `settings` the class that reads it, module:class.
"""

import time
from collections import Counter
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from service_kit.printable import json_text, printable
from service_kit.settings import load_settings
from service_kit.terminal.command import Argument, Option, Options, echo
from service_kit.terminal.failures import Failed
from service_kit.terminal.printing import Json, Printer, Table, Wide, counted

if TYPE_CHECKING:  # a service that records nothing must not load the record
    from recording.delivery.dead_letters import DeadLetters, KeptLetter
    from recording.spool import Folders

out = Printer()

DROPPED = "an operator dropped them, which the ledger had refused"

DryRun = Annotated[bool, Option("--dry-run", help="Say what would be done, and do nothing.")]


class Chosen(Options):
    """Which rows a command is about."""

    ids: Annotated[list[str] | None, Argument(help="Ids of rows, as `list` shows them.")] = None
    every: Annotated[bool, Option("--all", help="All of them.")] = False
    code: Annotated[str, Option(help="Those that were refused for this reason, such as TOO_OLD.")] = ""

    def of(self, letters: "DeadLetters") -> "list[KeptLetter]":
        """The letters. Raises Failed: none are named, or one is not there."""
        if not (self.ids or self.every or self.code):
            _fail("Name rows by their ids, by --code, or take them --all.")
        wanted = set(self.ids or ())
        found = letters.read()
        if missing := wanted - {letter.id for letter in found}:
            _fail(f"There is no dead letter with the id {min(missing)}.")
        return [
            letter
            for letter in found
            if self.every
            or (letter.id and letter.id in wanted)
            or (self.code and letter.about.get("code") == self.code)
        ]


def list_letters(settings: str, variable: str, as_json: Json = False, wide: Wide = False) -> None:
    """List the rows that the ledger refused, with the reason."""
    letters = _open(settings, variable)[0].read()
    if as_json:
        for letter in letters:
            _print_json(_about(letter))
    if not letters:
        Printer(stderr=True).print("the ledger has refused no row", style="yellow")
    if as_json or not letters:
        return
    table = Table("id", "kind", "refused at", "code", "reason", least=("kind", "refused at"), text="reason", wraps=True)
    for letter in letters:
        about = _about(letter)
        table.add_row(*(printable(str(about[key])) for key in ("id", "kind", "refused_at", "code", "message")))
    out.print(table, wide=wide)


def show(settings: str, variable: str, which: Chosen, as_json: Json = False) -> None:
    """Show refused rows as they were recorded, one JSON object a line in any case."""
    for letter in which.of(_open(settings, variable)[0]):
        _print_json(letter.about or _about(letter))


def resend(settings: str, variable: str, which: Chosen, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Send refused rows again, once what they were refused for is mended. Their ids stay, so none is stored twice."""
    letters, folders = _open(settings, variable)
    chosen = which.of(letters)
    rows = [letter.row() for letter in chosen if letter.about]
    if dry_run or not rows:
        told = f"{counted(len(rows), 'row')} would be sent again"
        _tell(told, {"rows": len(rows), "resent": False}, as_json=as_json)
        return
    spool = folders.make()  # numbers of its own; it is free once it is closed, and adopted like a dead process's
    try:
        taken = [spool.append(row) for row in rows]
        whole = all(taken) and spool.sync()
    finally:
        spool.close()
    if not whole:
        _fail("The disk does not take them: nothing was removed from the dead letters.")
    letters.remove([letter for letter in chosen if letter.about])
    told = f"{len(rows)} rows are on their way to the ledger again, as producer {spool.id}"
    _tell(told, {"rows": len(rows), "resent": True, "producer_id": spool.id}, as_json=as_json)


def drop(settings: str, variable: str, which: Chosen, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Remove refused rows for good. It says which, and a row `onrecord.gap` tells the ledger how many."""
    from recording.spool.gap import Gap

    letters, folders = _open(settings, variable)
    chosen = which.of(letters)
    for letter in chosen:
        _print_json(_about(letter))
    if dry_run or not chosen:
        _tell(
            f"{counted(len(chosen), 'row')} would be dropped", {"rows": len(chosen), "dropped": False}, as_json=as_json
        )
        return
    kinds = Counter(str(_about(letter)["kind"]) for letter in chosen)
    times = [int(letter.about["time_ms"]) for letter in chosen if letter.about]
    now_ms = time.time_ns() // 1_000_000
    gap = Gap.begin()
    gap.from_ms, gap.to_ms = min(times, default=now_ms), max(times, default=now_ms)
    gap.model_requests, gap.session_states = kinds["CostRow"], kinds["SessionRow"]
    gap.tool_calls = len(chosen) - gap.model_requests - gap.session_states
    spool = folders.make()
    try:
        told = spool.append(gap.row(DROPPED)) and spool.sync()
    finally:
        spool.close()
    if not told:
        _fail("The disk does not take the row that tells of it: nothing was dropped.")
    letters.remove(chosen)
    _tell(f"{len(chosen)} rows dropped", {"rows": len(chosen), "dropped": True}, as_json=as_json)


def _open(settings: str, variable: str) -> "tuple[DeadLetters, Folders]":
    from recording.delivery.dead_letters import DeadLetters
    from recording.spool import Folders, SpoolOptions

    module, _, name = settings.partition(":")
    root = load_settings(getattr(import_module(module), name)).state_dir.resolve() / "spool"
    if not root.is_dir():
        _fail(f"There is no spool at {root}: set {variable} as the service has it.")
    return DeadLetters(root), Folders(root, SpoolOptions())


def _about(letter: "KeptLetter") -> dict[str, Any]:
    """What is said of a letter in a list: names and numbers."""
    about = letter.about
    if not about:
        return {"id": "", "kind": "unreadable", "refused_at": "", "code": "", "message": f"{len(letter.line)} bytes"}
    refused_at = datetime.fromtimestamp(int(about["time_ms"]) / 1000, UTC).isoformat(timespec="seconds")
    return {
        "id": letter.id,
        "kind": about["kind"],
        "refused_at": refused_at,
        "code": about["code"],
        "message": about["message"],
        "producer_id": about["producer_id"],
        "number": about["number"],
    }


def _tell(sentence: str, about: dict[str, Any], *, as_json: bool) -> None:
    """What was done, in a sentence for people or as an object."""
    if as_json:
        _print_json(about)
    else:
        out.print(sentence)


def _print_json(about: dict[str, Any]) -> None:
    echo(json_text(about, ascii_only=True))


def _fail(sentence: str) -> NoReturn:
    raise Failed(sentence)
