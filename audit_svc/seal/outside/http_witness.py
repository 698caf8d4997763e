"""Asks a witness to cosign (https://c2sp.org/tlog-witness), by HTTP."""

import base64
from typing import NamedTuple

import httpx2

from audit_svc.errors import AuditError, Damaged
from audit_svc.seal.outside.cosigned import MAX_COSIGNED_BYTES
from audit_svc.seal.outside.policy import NamedWitness
from audit_svc.seal.outside.posting import NotAnswered, post
from audit_svc.seal.reader import SealReader
from recording.transparency.note import split_note

TRIES = 3
"""A witness that others ask too may know of another size each time."""
SIZE_TYPE = "text/x.tlog.size"
_OK, _CONFLICT, _UNPROVEN = 200, 409, 422
_WHY = {
    400: "it takes the request for a wrong one",
    403: "it does not know the log's key",
    404: "it does not know the log: its operator has to add it, by the key of `audit-svc seal key show`",
    429: "it is asked too often: raise AUDIT_SEAL_OUTSIDE_SECONDS",
}


class NotCosigned(AuditError):
    """A witness has not cosigned; asked again later it may."""


class Contradicted(Damaged):
    """A witness has seen a log with which this one does not begin."""


class Question(NamedTuple):
    """A checkpoint, and that it begins with what a witness has seen."""

    note: str
    size: int
    old_size: int
    body: str


async def ask(client: httpx2.AsyncClient, witness: NamedWitness, seal: SealReader) -> int:
    """Has the newest checkpoint cosigned, and keeps that. Returns its leaves.

    Raises:
        NotCosigned: not now.
        Contradicted: never: the log was rolled back or written anew.
        AuditError: the log cannot be read.
    """
    old_size = await seal.ask(lambda reader: reader.seen_by(witness.key))
    for _ in range(TRIES):
        question = await seal.ask(lambda reader, old=old_size: _question(reader, old))  # type: ignore[misc] # of this round
        status, media_type, body = await _post(client, f"{witness.url}/add-checkpoint", question.body)
        if status == _OK:
            try:
                await seal.ask(lambda reader, note=question.note + body: reader.add_cosignature(note))  # type: ignore[misc]
            except Damaged:
                raise
            except AuditError as error:
                raise NotCosigned(f"what it answers is not a cosignature by its key: {error}") from None
            return question.size
        if status == _CONFLICT and media_type == SIZE_TYPE and body.strip().isdecimal():
            old_size = int(body[:20])
            continue
        if status in {_CONFLICT, _UNPROVEN}:
            raise Contradicted(
                f"it has seen {question.old_size} leaves with which this log does not begin: the log was rolled back "
                "or written anew, or the witness lost what it knew"
            )
        raise NotCosigned(_WHY.get(status, f"it answers with the HTTP status {status}"))
    raise NotCosigned("it names another size each time that it is asked")


def _question(reader: SealReader, old_size: int) -> Question:
    head = reader.head()
    if old_size > head.checkpoint.size:
        raise Contradicted(f"it has seen {old_size} leaves, and the log has {head.checkpoint.size}: it was rolled back")
    hashes = "".join(f"{base64.b64encode(each).decode()}\n" for each in reader.consistency(head, old_size))
    text, signatures = split_note(head.note)
    note = f"{text}\n{signatures[0].line}"
    return Question(note, head.checkpoint.size, old_size, f"old {old_size}\n{hashes}\n{note}")


async def _post(client: httpx2.AsyncClient, url: str, body: str) -> tuple[int, str, str]:
    """The status, the media type, and the body of the answer."""
    try:
        answer = await post(client, url, body.encode(), "text/plain; charset=utf-8", MAX_COSIGNED_BYTES)
    except NotAnswered as error:
        raise NotCosigned(str(error)) from None
    return answer.status, answer.media_type, answer.body.decode(errors="replace")
