"""The texts of a row beside its proof, with the row's salt: who gets both can check that they are those in the leaf."""

import json
from typing import Any

from audit_svc.ledger.erased import ERASED
from audit_svc.seal.leaf import Kind, sealed_text
from audit_svc.seal.ledger import SealedLedger
from recording.transparency.errors import BadNote

MAX_BYTES = 1 << 20
"""Of a file with texts; a row's have some 7 KiB."""


def texts_of(ledger: SealedLedger, kind: Kind, position: int) -> dict[str, Any]:
    """What a receiver needs to check a row's texts: `salt` in hexadecimal, and `texts` by their names in the leaf.

    A row from before there were salts has an empty one. What was erased is not there; `erased` has the entry that says
    so: its position, when in ms, by whom.
    """
    if not kind.hashed:
        return {"salt": "", "texts": {}}
    row = ledger.row(kind, position)
    texts = {name: row[name] for name in kind.hashed if row[name] is not None}
    found: dict[str, Any] = {"salt": (row["salt"] or b"").hex(), "texts": texts}
    if row["erased"] is not None:
        found["texts"] = {name: text for name, text in texts.items() if text != ERASED}
        entry, at_ms, by = ledger.erasure_of(kind, position) or (None, None, None)
        found["erased"] = {"entry": entry, "at_ms": at_ms, "by": by}
    return found


def check_texts(leaf: bytes, said: bytes) -> list[str]:
    """The names of the texts that are those of a leaf. said: what texts_of() gives, as JSON.

    Raises:
        BadNote: it is something else, or a text is not what the leaf has.
    """
    try:
        row, read = json.loads(leaf), json.loads(said)
        salt, texts = bytes.fromhex(read["salt"]), dict(read["texts"])
        if not all(isinstance(text, str) for text in texts.values()):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadNote("the file has no texts of a row, as `audit-svc proof --texts` writes them") from None
    for name, text in texts.items():
        if not isinstance(row, dict) or row.get(name) != sealed_text(salt, text):
            raise BadNote(f"the text {name!r} is not the one that was sealed: it, or the salt, was changed")
    return sorted(texts)
