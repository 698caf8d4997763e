"""What an answer of the ledger proves, or contradicts. Nothing here asks or writes anything."""

import json
from collections.abc import Iterable
from typing import Any

from onrecord.audit.v1 import audit_pb2, proof_pb2

from recording.logger import Row
from recording.transparency import tree
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.errors import BadKey, BadNote
from recording.transparency.note import Verifier, split_note
from recording.transparency.proof import Proof
from recording.witness.view import Kind, View

KINDS: dict[type, audit_pb2.RowKind.ValueType] = {
    audit_pb2.AuditRow: audit_pb2.ROW_KIND_TOOL_CALL,
    audit_pb2.CostRow: audit_pb2.ROW_KIND_MODEL_REQUEST,
}
"""The rows of which proofs are asked for: those of which each is there once."""


class Contradiction(Exception):
    """The ledger has shown something that cannot stand beside what it showed before."""

    def __init__(self, kind: Kind, what: str, row_id: str = "", note: str = "", seen: str = "") -> None:
        super().__init__(what)
        self.note = note
        """The checkpoint that it has shown now."""
        self.seen = seen
        """The checkpoint that this contradicts; empty: the one of the view."""
        self.kind: Kind = kind
        self.row_id = row_id
        """Of the row that is another, so that it is told once."""


def seen(view: View) -> Checkpoint | None:
    """The checkpoint of a view."""
    return Checkpoint.parse(split_note(view.note)[0]) if view.note else None


def read_head(view: View, answer: proof_pb2.GetCheckpointResponse) -> tuple[Verifier, Checkpoint]:
    """The log's key and the checkpoint that it has signed, whatever the view has seen before.

    Raises:
        Contradiction: the key is another than the view's, and none that this one leads to.
    """
    try:
        verifier = _rotated(Verifier.parse(view.key or answer.verifier_key), answer.rotations)
        return verifier, Checkpoint.open(answer.note, verifier)
    except (BadNote, BadKey) as error:
        raise Contradiction("key", f"its log is not signed with the key that is known: {error}") from None


def _rotated(known: Verifier, rotations: Iterable[str]) -> Verifier:
    """The key that follows a known one by the log's own entries, each in a log that the key before it has signed."""
    for text in rotations:
        try:
            proof = Proof.parse(text)
            proof.check(known)
            said = json.loads(proof.leaf)
            if said["kind"] == "entry" and said["act"] == "rotate" and said["old"] == str(known):
                following = Verifier.parse(said["key"])
                known = following if following.name == known.name else known
        except (BadNote, BadKey, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # of another key, or not to be believed
    return known


def next_key(verifier: Verifier, answer: proof_pb2.GetCheckpointResponse) -> str:
    """The key to go on with: another where a checkpoint that the known one signed is signed with that too."""
    try:
        other = Verifier.parse(answer.verifier_key)
        Checkpoint.open(answer.note, other)
    except (BadNote, BadKey):
        return str(verifier)
    return str(other)


def check_growth(old: Checkpoint | None, new: Checkpoint, hashes: list[bytes]) -> None:
    """That a log begins with what it showed before.

    Raises:
        Contradiction: it does not.
    """
    if old is None:
        return
    if new.size < old.size:
        raise Contradiction("log", f"its log went back from {old.size} leaves to {new.size}")
    if not tree.is_consistent(old.root, old.size, new.root, new.size, hashes):
        raise Contradiction(
            "log", f"its log of {new.size} leaves does not begin with the {old.size} that it showed before"
        )


def new_restores(
    view: View, verifier: Verifier, head: Checkpoint, answer: proof_pb2.GetCheckpointResponse
) -> dict[str, dict[str, Any]]:
    """By their hashes, the entries about restores that the view does not know and that stand in the log for certain."""
    found: dict[str, dict[str, Any]] = {}
    for text in answer.restores:
        try:
            proof = Proof.parse(text)
            holds = proof.check(verifier) == head
            said = json.loads(proof.leaf)
        except (BadNote, ValueError):
            continue
        hash_ = tree.leaf_hash(proof.leaf).hex()
        is_restore = isinstance(said, dict) and said.get("kind") == "entry" and said.get("act") == "restore"
        if holds and is_restore and hash_ not in view.restores:
            found[hash_] = said
    return found


def check_row(verifier: Verifier, row: Row, text: str) -> tuple[Checkpoint, str]:
    """That a proof is of a row that this producer recorded; returns the checkpoint that holds it, and its note.

    Raises:
        Contradiction: it is not.
    """
    try:
        proof = Proof.parse(text)
        checkpoint = proof.check(verifier)
        said = json.loads(proof.leaf)
    except (BadNote, ValueError) as error:
        raise Contradiction("row", f"its proof of an acknowledged row does not hold: {error}", row.id) from None
    for name, value in _members(row).items():
        if not isinstance(said, dict) or said.get(name) != value:
            raise Contradiction("row", f"an acknowledged row has another {name} in its log", row.id)
    return checkpoint, proof.note


def _members(row: Row) -> dict[str, str]:
    """What a leaf says of a row, as far as it is the producer's word alone (docs/seal-format.md)."""
    said = {"id": row.id}
    if isinstance(row, audit_pb2.AuditRow):
        said |= {"kind": "tool_call", "tool_name": row.tool_name}
        said |= {"duration_ms": str(row.duration_ms), "created_at": str(row.created_at_ms)}
    elif isinstance(row, audit_pb2.CostRow):
        said |= {"kind": "model_request", "created_at": str(row.created_at_ms)}
        said |= {"input_tokens": str(row.input_tokens), "output_tokens": str(row.output_tokens)}
    return said
