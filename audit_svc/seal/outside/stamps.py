"""Time-stamps of checkpoints by an authority (RFC 3161): checked, and kept beside the log.

A stamp says that the log of so many leaves existed at a time, by the clock of somebody else. The library is an extra,
and is loaded where a stamp is made or checked.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.x509 import Certificate, load_der_x509_certificate, load_pem_x509_certificates
from cryptography.x509.oid import NameOID

from audit_svc.errors import StoreRefused
from audit_svc.seal.errors import SealError
from audit_svc.seal.log import Files
from audit_svc.seal.outside.quorum import RootOf
from audit_svc.seal.outside.set_order import sorted_certificates
from recording.transparency.checkpoint import Checkpoint
from recording.transparency.errors import BadNote
from recording.transparency.note import split_note
from service_kit.extras import is_missing

if TYPE_CHECKING:
    from rfc3161_client import TimeStampRequest, TimeStampResponse

FOLDER = "timestamps"
"""Below the log: a folder for each stamp, by how many leaves there were."""
_NOTE, _ANSWER = "/checkpoint", "/stamp.tsr"
"""What the log had signed, and the authority's answer as it came."""
MAX_ANSWER_BYTES = 65_536
"""One with its certificates has some 6,000."""


class BadStamp(SealError):
    """An answer is no time-stamp of the checkpoint by a known authority."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """That the log's first leaves existed at a time."""

    leaves: int
    at: datetime
    """By the authority's clock."""
    authority: str
    """The name in its certificate."""


@dataclass
class Stamped:
    """What is kept of an authority's."""

    stamps: list[Stamp] = field(default_factory=list)
    """Those that are good, the oldest first."""
    problems: list[str] = field(default_factory=list)


def refuse_without_library() -> None:
    """Raises StoreRefused where the library is not installed."""
    if find_spec("rfc3161_client") is None:
        raise StoreRefused(f"time-stamps need a library: {is_missing('timestamp')}")


def read_authorities(path: Path) -> list[Certificate]:
    """The certificates of a file in PEM, which are believed. Raises SealError."""
    try:
        return load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise SealError(f"{path} cannot be read ({error.strerror}): it must have the authority's CA") from None
    except ValueError:
        raise SealError(f"{path} has no certificates in PEM: it must have the authority's CA") from None


def request_for(note: bytes) -> "TimeStampRequest":
    """What an authority is asked: to stamp the SHA-256 of a checkpoint, with a number that nobody else knows."""
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    return TimestampRequestBuilder().data(note).hash_algorithm(HashAlgorithm.SHA256).build()


def check(answer: bytes, note: bytes, authorities: Sequence[Certificate], nonce: int | None = None) -> Stamp:
    """What an answer proves: granted, of this checkpoint, signed by an authority, whose certificate held at that time.

    Args:
        answer: a TimeStampResp in DER.
        note: the checkpoint that was stamped.
        authorities: to which the signer's certificate must lead, and which are all believed.
        nonce: of the request, where the answer is a new one.

    Raises:
        BadStamp.
    """
    from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

    try:
        with _panics_are_errors():
            found = decode_timestamp_response(sorted_certificates(answer))
            if found.status:
                said = " ".join("".join(found.status_string).split())[:200]
                raise BadStamp(f"it grants no time-stamp (status {found.status}{f', {said}' if said else ''})")
            VerifierBuilder(roots=list(authorities), nonce=nonce).build().verify_message(found, note)
            at, authority = found.tst_info.gen_time, _signer(found)
    except (ValueError, TypeError, VerificationError) as error:
        raise BadStamp(f"its answer is not a time-stamp that holds: {_in_short(error)}") from None
    return Stamp(_checkpoint(note).size, at, authority)


class Stamps:
    """The stamps beside a log. One process writes, any may read."""

    def __init__(self, log: Files) -> None:
        self._log = log

    def keep(self, note: bytes, answer: bytes) -> None:
        """Keeps a stamp that was checked."""
        name = f"{FOLDER}/{_checkpoint(note).size:020d}"
        self._log.write({f"{name}{_NOTE}": note})  # a stamp is there once its answer is
        self._log.write({f"{name}{_ANSWER}": answer})

    def names(self) -> list[str]:
        """Of all, the oldest first."""
        return sorted(path.removesuffix(_ANSWER) for path in self._log.paths(FOLDER) if path.endswith(_ANSWER))

    def newest(self) -> tuple[int, datetime] | None:
        """The leaves and the time of the newest, which was checked when it was kept; None where there is none."""
        from rfc3161_client import decode_timestamp_response

        for name in self.names()[-1:]:
            try:
                with _panics_are_errors():
                    note, answer = self._read(name)
                    return _checkpoint(note).size, decode_timestamp_response(
                        sorted_certificates(answer)
                    ).tst_info.gen_time
            except (ValueError, BadStamp):
                return None  # `verify` tells what is wrong with it
        return None

    def look(self, authorities: Sequence[Certificate], root_of: RootOf) -> Stamped:
        """Checks all against a log that was verified. Raises BadLog: a file cannot be read."""
        found = Stamped()
        for name in self.names():
            try:
                note, answer = self._read(name)
                stamp = check(answer, note, authorities)
            except BadStamp as error:
                found.problems.append(f"the time-stamp {self._log.place(name + _ANSWER)} cannot be used: {error}")
                continue
            if root_of(stamp.leaves) == _checkpoint(note).root:
                found.stamps.append(stamp)
            else:
                found.problems.append(
                    f"{stamp.authority} has stamped {stamp.leaves} leaves at {stamp.at.isoformat()} with which this "
                    "log does not begin: it was rolled back or written anew"
                )
        if not found.stamps:
            found.problems.append("no time-stamp by this authority holds for this log")
        return found

    def _read(self, name: str) -> tuple[bytes, bytes]:
        note, answer = self._log.read(name + _NOTE), self._log.read(name + _ANSWER)
        if note is None or answer is None:
            raise BadStamp("the checkpoint beside it is missing")
        return note, answer


def _checkpoint(note: bytes) -> Checkpoint:
    try:
        return Checkpoint.parse(split_note(note.decode())[0])
    except (UnicodeDecodeError, BadNote) as error:
        raise BadStamp(f"what was stamped is not a checkpoint ({error})") from None


def _in_short(error: Exception) -> str:
    """What the library and OpenSSL say last, without the places in their code."""
    said = re.findall(r'(?:Verify error:|reason: "|kind: )([^",]+)', str(error))
    return (said[-1] if said else str(error) or type(error).__name__).strip()


def _signer(answer: "TimeStampResponse") -> str:
    """The name in the certificate of who signed, after that was verified."""
    (signer,) = answer.signed_data.signer_infos
    for each in answer.signed_data.certificates:
        certificate = load_der_x509_certificate(each)
        if (certificate.issuer, certificate.serial_number) == (signer.issuer, signer.serial_number):
            named = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            return str(named[0].value) if named else certificate.subject.rfc4514_string()
    raise BadStamp("it has no certificate of its signer")


@contextmanager
def _panics_are_errors() -> Iterator[None]:
    """The library's own defects, which are no Exception: an answer that it cannot read ends no process."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError("it cannot be read") from None
