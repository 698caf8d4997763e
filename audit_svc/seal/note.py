"""Keys, and notes that they sign (https://c2sp.org/signed-note), Ed25519 alone."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit_svc.seal.errors import BadKey, BadNote

_ED25519 = b"\x01"
_PRIVATE = "PRIVATE+KEY+"
MAX_NOTE_BYTES = 1 << 20
"""No note that is read is larger."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with its name."""

    name: str
    key_id: bytes
    public: Ed25519PublicKey

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `name+id+key`, as Go's sumdb/note writes it. Raises BadKey."""
        try:
            name, said_id, encoded = text.strip().split("+", 2)
            raw = base64.b64decode(encoded, validate=True)
            if raw[:1] != _ED25519:
                raise BadKey("the key is of another kind than Ed25519")
            public = Ed25519PublicKey.from_public_bytes(raw[1:])
        except (ValueError, binascii.Error):
            raise BadKey("a verifier key looks like name+1a2b3c4d+AVpz…: see `audit-svc seal key show`") from None
        made = cls(check_name(name), _key_id(name, raw), public)
        if made.key_id.hex() != said_id:
            raise BadKey("the key and its id do not belong together: copy the whole of it again")
        return made

    def __str__(self) -> str:
        raw = _ED25519 + self.public.public_bytes_raw()
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(raw).decode()}"


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key with its name."""

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
            if not text.startswith(_PRIVATE) or raw[:1] != _ED25519:
                raise ValueError
            made = cls(check_name(name), Ed25519PrivateKey.from_private_bytes(raw[1:]))
        except (ValueError, binascii.Error):
            raise BadKey("the file has no signing key: `audit-svc seal key new` makes one") from None
        if made.verifier.key_id.hex() != said_id:
            raise BadKey("the signing key and its id do not belong together: the file is damaged")
        return made

    @property
    def verifier(self) -> Verifier:
        """What checks its signatures."""
        public = self.private.public_key()
        return Verifier(self.name, _key_id(self.name, _ED25519 + public.public_bytes_raw()), public)

    def __str__(self) -> str:
        raw = base64.b64encode(_ED25519 + self.private.private_bytes_raw()).decode()
        return f"{_PRIVATE}{self.name}+{self.verifier.key_id.hex()}+{raw}"

    def sign(self, text: str) -> str:
        """The note of a text that ends in a line break."""
        signature = base64.b64encode(self.verifier.key_id + self.private.sign(text.encode())).decode()
        return f"{text}\n— {self.name} {signature}\n"


def open_note(note: str, verifiers: Sequence[Verifier]) -> str:
    """The text of a note that one of the keys has signed. Raises BadNote: none has, or it is no note."""
    if len(note) > MAX_NOTE_BYTES or any(char < " " and char != "\n" for char in note):
        raise BadNote("it is no signed note")
    text, blank, signatures = note.rpartition("\n\n")
    if not blank or not signatures.endswith("\n"):
        raise BadNote("it is no signed note")
    text += "\n"
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    signed = False
    for line in signatures.removesuffix("\n").split("\n"):
        try:
            dash, name, encoded = line.split(" ")
            raw = base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            raise BadNote("a line of its signatures cannot be read") from None
        if dash != "—" or len(raw) < 5:
            raise BadNote("a line of its signatures cannot be read")
        if verifier := known.get((name, raw[:4])):
            try:
                verifier.public.verify(raw[4:], text.encode())
            except InvalidSignature:
                raise BadNote(f"the signature of {name} does not fit: it was changed, or signed by another") from None
            signed = True
    if not signed:
        names = ", ".join(sorted({verifier.name for verifier in verifiers}))
        raise BadNote(f"none of the known keys ({names}) has signed it")
    return text


def check_name(name: str) -> str:
    """The name, when a key can have it. Raises BadKey."""
    if not name or "+" in name or any(char.isspace() or not char.isprintable() for char in name):
        raise BadKey("the name of a key or log is not empty, and has neither spaces nor `+`")
    return name


def _key_id(name: str, raw: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
