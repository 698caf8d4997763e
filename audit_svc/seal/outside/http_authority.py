"""Asks a time-stamping authority (RFC 3161, 3.4) by HTTP for a stamp of the newest checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2

from audit_svc.seal.outside.posting import NotAnswered, post
from audit_svc.seal.outside.stamps import MAX_ANSWER_BYTES, BadStamp, check, read_authorities, request_for
from audit_svc.seal.reader import SealReader

_QUERY, _REPLY = "application/timestamp-query", "application/timestamp-reply"
MOST_APART = timedelta(minutes=10)
"""The authority's clock, and this machine's: one whose certificate has expired could say an earlier time."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Who stamps the log, by its operator's settings."""

    url: str
    ca: Path
    """Read at each stamp."""
    seconds: float
    """From stamp to stamp, where there is a new checkpoint."""
    writes: Callable[[], bool] = lambda: True
    """Whether this replica is the one that writes now: one asks for all."""


async def is_due(authority: Authority, seal: SealReader) -> bool:
    """Whether there is a checkpoint that should be stamped now. Raises NotSealed, Damaged."""
    head = await seal.ask(SealReader.head)
    newest = await seal.ask(SealReader.newest_stamp)
    if newest is None:
        return head.checkpoint.size > 0  # of a log without leaves it would prove nothing
    leaves, at = newest
    waited = (datetime.now(UTC) - at).total_seconds()
    # a clock that was put back would wait for as long
    return head.checkpoint.size > leaves and not 0 <= waited < authority.seconds


async def ask(client: httpx2.AsyncClient, authority: Authority, seal: SealReader) -> int:
    """Has the newest checkpoint stamped, and keeps that. Returns its leaves.

    Raises:
        NotAnswered, BadStamp: nothing is kept.
        SealError, AuditError: the CA's file, or the log, cannot be read.
    """
    signed = await seal.ask(SealReader.signed_checkpoint)
    request = request_for(signed)
    answer = await post(client, authority.url, request.as_bytes(), _QUERY, MAX_ANSWER_BYTES)
    if answer.status != httpx2.codes.OK:
        raise NotAnswered(f"it answers with the HTTP status {answer.status}")
    if answer.media_type != _REPLY:
        raise NotAnswered(f"it answers with {answer.media_type or 'no media type'}, and not with {_REPLY}: see its URL")

    def check_and_keep(reader: SealReader) -> int:
        stamp = check(answer.body, signed, read_authorities(authority.ca), request.nonce)
        if abs(stamp.at - (now := datetime.now(UTC))) > MOST_APART:
            raise BadStamp(f"it says that it is {stamp.at.isoformat()}, and here it is {now.isoformat()}")
        reader.keep_stamp(signed, answer.body)
        return stamp.leaves

    return await seal.ask(check_and_keep)
