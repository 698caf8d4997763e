"""The file that says who may call: names, roles, and hashes of tokens or the names in certificates.

    [[callers]]
    name = "gateway-1"
    roles = ["producer"]
    sha256 = "…"                        # of the token; `token` makes it

    [[callers]]
    name = "ops"
    roles = ["admin"]
    expires = 2027-01-31T00:00:00Z             # ahead of what lets it in
    certificate = "spiffe://example.org/ops"   # a URI in the certificate, or its common name

A name may stand more than once, with the old token and the new one while they are replaced. A file that is cut, as by a
full disk, lets nobody in whom the whole one would not: what limits an entry stands ahead of its proof, the hash or the
certificate, and an entry without one counts for nothing.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import structlog
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from recording.channel.watched import WrongFile
from service_kit.toml_file import first_problem, parse_toml

log = structlog.get_logger(__name__)

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""A caller's name; without a slash, which parts it from the rest of a producer id."""


def check_name(value: str) -> str:
    """Returns value, if it can be a caller's name.

    Raises:
        ValueError: it cannot.
    """
    if not re.fullmatch(NAME_PATTERN, value):
        raise ValueError(
            "a name has 1 to 64 letters, digits, dots, dashes and underscores, and begins with a letter or a digit"
        )
    return value


CallerName = Annotated[str, AfterValidator(check_name)]


_PROOFS = {"sha256", "certificate"}


class Role(StrEnum):
    """What a caller may do; docs/security.md has the table of roles and RPCs."""

    PRODUCER = "producer"
    READER = "reader"
    ADMIN = "admin"
    CALLER = "caller"
    APPROVER = "approver"


class Entry(BaseModel):
    """One caller of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    roles: Annotated[frozenset[Role], Field(min_length=1)]
    sha256: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")] = None
    certificate: Annotated[str | None, Field(min_length=1)] = None
    expires: AwareDatetime | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_proof(cls, entry: Any) -> Any:
        given = [key for key in entry if key in {*_PROOFS, "expires"}] if isinstance(entry, dict) else []
        if {*given} >= _PROOFS:
            raise ValueError("give either sha256, the hash of a token, or certificate, a name in a certificate")
        if given[1:] == ["expires"]:
            raise ValueError(f"put expires ahead of {given[0]}, or a file that is cut between them lets it in for ever")
        return entry

    def has_expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Callers:
    """The callers that a file lists."""

    entries: tuple[Entry, ...]

    def by_token(self, token: str) -> Entry | None:
        """The caller whose token it is. Takes the same time whichever entry matches."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        found = None
        for entry in self.entries:
            if hmac.compare_digest(entry.sha256 or "", digest):
                found = entry
        return None if found is None or found.has_expired() else found

    def by_certificate(self, names: Iterable[str]) -> Entry | None:
        """The caller that a verified certificate with these names belongs to."""
        named = set(names)
        return next((entry for entry in self.entries if entry.certificate in named and not entry.has_expired()), None)


def check_callers(path: Path, content: bytes) -> None:
    """Refuses a file that a service cannot start with. One that is emptied later lets nobody in.

    Raises:
        WrongFile: as load_callers(), or it lists nobody.
    """
    if not load_callers(path, [content]).entries:
        raise WrongFile(path, "lists no caller, so nobody could call: add one with the command `token`")


def load_callers(path: Path, contents: Sequence[bytes]) -> Callers:
    """The callers in the contents of the one file at path.

    Raises:
        WrongFile: it is not as described above; the message quotes no hash.
    """
    document = parse_toml(path, contents[0])
    if set(document) - {"callers"} or not isinstance(entries := document.get("callers", []), list):
        raise WrongFile(path, "may hold [[callers]] tables and nothing else")
    callers = []
    for number, entry in enumerate(entries, 1):
        if isinstance(entry, dict) and not _PROOFS & entry.keys():
            log.warning("callers.entry_without_proof", path=str(path), caller=number, hint="give sha256 or certificate")
            continue
        try:
            callers.append(Entry.model_validate(entry))
        except ValidationError as error:
            raise WrongFile(path, f"caller {number}: {first_problem(error)}") from None
    return Callers(tuple(callers))


def make_token(name: str, roles: Sequence[Role], expires: datetime | None = None) -> tuple[str, str]:
    """A new token, and the table for the file that lets it in, in whole lines.

    Raises:
        ValueError: the name cannot be one.
    """
    check_name(name)
    token = secrets.token_urlsafe(32)
    listed = ", ".join(f'"{role}"' for role in roles)
    lines = [
        "[[callers]]",
        f'name = "{name}"',
        f"roles = [{listed}]",
    ]
    if expires:
        lines.append(f"expires = {expires.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}")
    lines.append(f'sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"')
    return token, "\n".join([*lines, ""])
