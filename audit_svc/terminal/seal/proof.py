"""proof, and verify --proof."""

import json
from pathlib import Path
from typing import Annotated, Any

from audit_svc.seal.errors import SealError
from audit_svc.seal.files import replace_file
from audit_svc.seal.folder import newest_checkpoint, read_verifier
from audit_svc.seal.leaf import BY_NAME
from audit_svc.seal.ledger import SealedLedger
from audit_svc.seal.outside.cosigned import cosigned_by_all
from audit_svc.seal.outside.quorum import look
from audit_svc.seal.proving import KINDS_WITH_ID, prove, rows_of
from audit_svc.seal.texts import MAX_BYTES, check_texts, texts_of
from audit_svc.terminal.client import LOOKED_THROUGH
from audit_svc.terminal.running import (
    Database,
    Force,
    Target,
    error_is_exit_code_1,
    nothing_can_be_said,
    refuse_both,
    refuse_existing,
    say,
    say_unseen,
)
from audit_svc.terminal.seal.place import Folder, where
from audit_svc.terminal.seal.report import told_witnesses
from recording.transparency.cosignature import Witness
from recording.transparency.proof import Proof
from service_kit.terminal.command import Argument, Option, echo
from service_kit.terminal.ids import LAST, is_whole, whole_id
from service_kit.terminal.printing import Json, print_fields
from service_kit.times import show_time


def proof(
    id: Annotated[  # noqa: A002
        str,
        Argument(
            help="The id of a tool call, a model request, a session or an act of control, or the first or last "
            f"characters of it; {LAST} is the newest session."
        ),
    ],
    db: Database = None,
    target: Target = None,
    seal: Folder = None,
    recorded_by: Annotated[str | None, Option("--recorded-by", help="Whose row, where an id is of several.")] = None,
    texts: Annotated[
        Path | None, Option(help="Write the row's texts and its salt to this file, for whom may read them.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Print the proof of a row: a signed checkpoint, the way to it, and the row as it was sealed."""
    refuse_both(db, target)
    if texts:
        refuse_existing(texts, force=force)
    if target:
        from audit_svc.terminal.seal import remote  # who reads a file needs none of it

        id, answer = remote.prove(target, id, recorded_by, with_texts=texts is not None)  # noqa: A001
        if texts:
            with error_is_exit_code_1():
                _write(texts, {"salt": answer.texts.salt.hex(), "texts": dict(answer.texts.texts)})
            if not answer.texts.texts and _has_hashes(answer.leaf):
                say_unseen(
                    "its texts were erased; `audit-svc proof` beside the ledger's database says when, and by whom"
                )
        _say(id, answer.proof, texts, as_json=as_json)
        return
    found = where(db, seal, may_ask_service=True)
    with error_is_exit_code_1(), found.reading() as ledger:
        verifier = found.verifier()
        _, note = newest_checkpoint(found.log, verifier)
        id = _named(ledger, id)  # noqa: A001
        rows = rows_of(ledger, KINDS_WITH_ID, id, recorded_by)
        made = prove(found.log, verifier, [*cosigned_by_all(found.log, verifier), note], rows)
        if texts:
            kind, position, _ = rows[-1]
            _write(texts, told := texts_of(ledger, kind, position))
            if erased := told.get("erased"):
                say_unseen(_of_erasure(**erased))
    _say(id, str(made), texts, as_json=as_json)


def _named(ledger: SealedLedger, text: str) -> str:
    """The id of the row that text stands for, see whole_id(). Raises BadParameter."""
    if is_whole(text) or any(ledger.owners(kind, text) for kind in KINDS_WITH_ID):
        return text
    kinds = [BY_NAME["session"]] if text == LAST else KINDS_WITH_ID
    return whole_id(text, [id_ for kind in kinds for id_ in ledger.newest_ids(kind, LOOKED_THROUGH)], "ID")


def _say(id_: str, made: str, texts: Path | None, *, as_json: bool) -> None:
    if as_json:
        print_fields({"id": id_, "proof": made, "texts_file": str(texts or "")})
    else:
        echo(made.removesuffix("\n"))


def _has_hashes(leaf: str) -> bool:
    said = json.loads(leaf)
    return any(said.get(name) is not None for name in BY_NAME[said["kind"]].hashed)


def _of_erasure(entry: int | None, at_ms: int | None, by: str | None) -> str:
    if entry is None or at_ms is None:
        return "its texts were erased, and no entry says so: `audit-svc verify` tells what was changed"
    return f"its texts were erased at {show_time(at_ms)}{f' by {by}' if by else ''}: entry {entry} of the erasures"


def _write(path: Path, texts: dict[str, Any]) -> None:
    try:
        replace_file(path, json.dumps(texts, indent=1).encode(), mode=0o600)
    except OSError as error:
        raise SealError(f"{path} cannot be written: {error.strerror}") from None


def verify_proof(
    path: Path, key: str | None, witnesses: list[Witness], quorum: int, texts: Path | None, *, as_json: bool
) -> None:
    with nothing_can_be_said():
        if key is None:
            raise SealError("a proof is checked with the log's verifier key: give it with --key")
        verifier = read_verifier(key)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SealError(f"{path} cannot be read ({type(error).__name__})") from None
        if not text:
            raise SealError(f"{path} is empty: the `audit-svc proof` that was to write it has failed; see what it said")
        made = Proof.parse(text)
    with error_is_exit_code_1():
        checkpoint = made.check(verifier)
        seen = look([made.note], verifier, witnesses, quorum, None)
        if seen.problems:
            raise SealError("; ".join(seen.problems))
        fitting = check_texts(made.leaf, _read(texts)) if texts else []
    said = f"leaf {made.index} of {checkpoint.size} in {checkpoint.origin}:\n{made.leaf.decode()}"
    fields = {
        "index": made.index,
        "leaves": checkpoint.size,
        "origin": checkpoint.origin,
        "leaf": made.leaf.decode(),
        "witnesses": told_witnesses(seen.by),
        "texts": fitting,
    }
    if texts:
        said += f"\ntexts that were sealed so: {', '.join(fitting) or 'none'}"
    say("", fields, as_json=True) if as_json else echo(said)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except OSError as error:
        raise SealError(f"{path} cannot be read ({error.strerror})") from None
