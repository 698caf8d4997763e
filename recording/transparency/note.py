"""Keys, and notes that they sign (https://c2sp.org/signed-note), Ed25519 alone."""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from recording.transparency.errors import BadKey, BadNote

_PRIVATE = "PRIVATE+KEY+"
MAX_NOTE_BYTES = 1 << 20
"""No note that is read is larger."""
_ID_BYTES = 4


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with its name."""

    KIND: ClassVar[bytes] = b"\x01"
    """The byte by which keys of one use are told from those of another."""
    WANTED: ClassVar[str] = "a verifier key looks like name+1a2b3c4d+AVpz…: see `audit-svc seal key show`"

    name: str
    key_id: bytes
    public: Ed25519PublicKey = field(hash=False)

    @classmethod
    def of(cls, name: str, public: Ed25519PublicKey) -> Self:
        """The key of that name."""
        return cls(name, _key_id(name, cls.KIND + public.public_bytes_raw()), public)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `name+id+key`, as Go's sumdb/note writes it. Raises BadKey."""
        try:
            name, said_id, encoded = text.strip().split("+", 2)
            raw = base64.b64decode(encoded, validate=True)
            if raw[:1] != cls.KIND:
                raise BadKey(f"the key is of another kind: {cls.WANTED}")
            public = Ed25519PublicKey.from_public_bytes(raw[1:])
        except (ValueError, binascii.Error):
            raise BadKey(cls.WANTED) from None
        made = cls.of(check_name(name), public)
        if made.key_id.hex() != said_id:
            raise BadKey("the key and its id do not belong together: copy the whole of it again")
        return made

    def __str__(self) -> str:
        raw = self.KIND + self.public.public_bytes_raw()
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(raw).decode()}"

    def verify(self, text: str, signature: bytes) -> None:
        """Raises BadNote: the key has not made the signature of the text."""
        self._verify(text.encode(), signature)

    def _verify(self, message: bytes, signature: bytes) -> None:
        try:
            self.public.verify(signature, message)
        except InvalidSignature:
            raise BadNote(f"the signature of {self.name} does not fit: it was changed, or signed by another") from None


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key with its name."""

    VERIFIER: ClassVar[type[Verifier]] = Verifier

    name: str
    private: Ed25519PrivateKey

    @classmethod
    def new(cls, name: str) -> Self:
        """A key that nobody else has. Raises BadKey: no key can have the name."""
        return cls(check_name(name), Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `PRIVATE+KEY+name+id+key`, as Go's sumdb/note writes it. Raises BadKey."""
        try:
            name, said_id, encoded = text.strip().removeprefix(_PRIVATE).split("+", 2)
            raw = base64.b64decode(encoded, validate=True)
            if not text.startswith(_PRIVATE) or raw[:1] != cls.VERIFIER.KIND:
                raise ValueError
            made = cls(check_name(name), Ed25519PrivateKey.from_private_bytes(raw[1:]))
        except (ValueError, binascii.Error):
            raise BadKey("the file has no signing key of this kind") from None
        if made.verifier.key_id.hex() != said_id:
            raise BadKey("the signing key and its id do not belong together: the file is damaged")
        return made

    @property
    def verifier(self) -> Verifier:
        """What checks its signatures."""
        return self.VERIFIER.of(self.name, self.private.public_key())

    def __str__(self) -> str:
        verifier = self.verifier
        raw = base64.b64encode(verifier.KIND + self.private.private_bytes_raw()).decode()
        return f"{_PRIVATE}{self.name}+{verifier.key_id.hex()}+{raw}"

    def sign(self, text: str) -> str:
        """The note of a text that ends in a line break."""
        return f"{text}\n{self.line(text)}"

    def line(self, text: str) -> str:
        """The line of its signature below a note's text."""
        return self._line(self.private.sign(text.encode()))

    def _line(self, signature: bytes) -> str:
        return f"— {self.name} {base64.b64encode(self.verifier.key_id + signature).decode()}\n"


class SignatureLine(NamedTuple):
    """A line below a note's text, which may be of a key that nobody here knows."""

    name: str
    key_id: bytes
    signature: bytes
    line: str
    """As it stands there, with its line break."""


def split_note(note: str) -> tuple[str, list[SignatureLine]]:
    """The text of a note, of which nothing is verified, and its signatures. Raises BadNote: it is no note."""
    if len(note) > MAX_NOTE_BYTES or any(char < " " and char != "\n" for char in note):
        raise BadNote("it is not a signed note")
    text, blank, signatures = note.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        raise BadNote("it is not a signed note")
    return f"{text}\n", read_signatures(signatures)


def read_signatures(lines: str) -> list[SignatureLine]:
    """Signatures that stand alone, a line each, with its line break. Raises BadNote."""
    found = []
    for line in lines.removesuffix("\n").split("\n"):
        try:
            dash, name, encoded = line.split(" ")
            raw = base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            raise BadNote("a line of its signatures cannot be read") from None
        if dash != "—" or len(raw) <= _ID_BYTES:
            raise BadNote("a line of its signatures cannot be read")
        found.append(SignatureLine(name, raw[:_ID_BYTES], raw[_ID_BYTES:], f"{line}\n"))
    return found


def open_note(note: str, verifiers: Sequence[Verifier]) -> str:
    """The text of a note that one of the keys has signed. Raises BadNote: none has, or it is no note."""
    text, signatures = split_note(note)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    signed = False
    for line in signatures:
        if verifier := known.get((line.name, line.key_id)):
            verifier.verify(text, line.signature)
            signed = True
    if not signed:
        names = {verifier.name for verifier in verifiers}
        told = f"none of the known keys ({_named(known)}) has signed it"
        if others := {(line.name, line.key_id) for line in signatures if line.name in names}:
            told += (
                f"; it names {_named(others)}: if the known key was retired, take the one after it from whoever "
                "keeps that key, and not from the log; otherwise it was changed, or signed by another"
            )
        raise BadNote(told)
    return text


def _named(keys: Iterable[tuple[str, bytes]]) -> str:
    """Keys as they begin when they are written: the name and the id."""
    return ", ".join(f"{name}+{key_id.hex()}" for name, key_id in sorted(keys))


def check_name(name: str) -> str:
    """The name, when a key can have it. Raises BadKey."""
    if not name or "+" in name or any(char.isspace() or not char.isprintable() for char in name):
        raise BadKey("the name of a key or log is not empty, and has neither spaces nor `+`")
    return name


def _key_id(name: str, raw: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + raw).digest()[:_ID_BYTES]
