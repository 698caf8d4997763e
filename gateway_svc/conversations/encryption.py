"""Encryption of sessions at rest: AES-256-GCM under a key of each session's own, made of the first key of a file.

    1 | length of the key's id 1 | the key's id | nonce 12 | ciphertext | tag 16

Each session has a key of its own by HKDF-SHA-256 (RFC 5869), and each record a random nonce of 96 bits: of a session's
key at most 2^32 records are made (NIST SP 800-38D). Nothing is counted, so nothing is used twice when a file is cut,
restored or written again after a crash. The associated data is the session, its owner, the kind and the place of the
record: what was moved, changed or put in another's place cannot be decrypted.

A session whose state is encrypted has no record in clear; one whose state is in clear may have encrypted ones, while it
is being encrypted.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from gateway_svc.errors import KeyMissing, SettingsError
from recording.key_file import Key, read_keys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SETTING = "GATEWAY_SESSIONS_KEY_FILE"
OVERHEAD_BYTES = 1 + 1 + 64 + 12 + 16
"""What encryption adds to a record at most."""

_MARK = b"\x01"
"""Of what is encrypted: no JSON begins with it."""
_NONCE_BYTES, _TAG_BYTES = 12, 16
_CHECK_BYTES = 16
_DOMAIN = b"onrecord/sessions 1\0"

log = structlog.get_logger(__name__)


class NotGenuine(Exception):
    """A record cannot be decrypted, though its key is there. The message says what it is, as the end of a sentence."""


def is_encrypted(stored: bytes) -> bool:
    """Whether a record's payload as it is kept is encrypted."""
    return stored.startswith(_MARK)


class Keys:
    """The keys of a deployment: the first encrypts, all decrypt."""

    def __init__(self, keys: Sequence[Key] = (), *, encrypts: bool = True) -> None:
        """encrypts: whether what is written is encrypted, where there is a key."""
        self._keys = {key.id: key.key for key in keys}
        self.first = keys[0].id if keys and encrypts else None
        """The key that encrypts; None where everything is written in clear."""

    @classmethod
    def of_file(cls, path: Path | None, *, encrypts: bool = True) -> "Keys":
        """The keys of a file; None: of none.

        Raises:
            WrongFile: it cannot be used.
        """
        return cls(read_keys(path) if path else (), encrypts=encrypts)

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._keys

    def __bool__(self) -> bool:
        return bool(self._keys)

    def subkey(self, key_id: str, info: bytes, size: int = 32) -> bytes:
        """A key that is made of one of these, for what info says."""
        from cryptography.hazmat.primitives.hashes import SHA256  # few deployments encrypt, and it takes long to load
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        return HKDF(SHA256(), size, salt=None, info=_DOMAIN + info).derive(self._keys[key_id])

    def checks(self) -> dict[str, bytes]:
        """By their ids what tells these keys from others, and nothing else of them."""
        return {key_id: self.subkey(key_id, b"check", _CHECK_BYTES) for key_id in self._keys}

    def compare(self, noted: Mapping[str, bytes]) -> None:
        """Looks whether these are the keys of a home, by the checks that it has noted.

        Raises:
            SettingsError: they are not.
        """
        if noted and not self:
            raise SettingsError(
                f"{SETTING}: is not set, and sessions here may be encrypted (by {_names(noted)}): name the file, or put"
                " them in clear first by `gateway-svc sessions decrypt`, with the file"
            )
        self.refuse_others(noted)
        if missing := sorted(noted.keys() - self._keys.keys()):
            log.warning(
                "sessions.key_missing",
                keys=missing,
                hint="sessions that are encrypted by it cannot be read; `gateway-svc sessions check` tells which",
            )

    def refuse_others(self, noted: Mapping[str, bytes]) -> None:
        """Looks whether each of these is the one of its id, by the checks that a home has noted.

        Raises:
            SettingsError: one is not.
        """
        for key_id, check in self.checks().items():
            if noted.get(key_id, check) != check:
                raise SettingsError(
                    f"{SETTING}: its key {key_id} is another than the one of this id that sessions here are encrypted "
                    "by: name the right file, or give the new key an id of its own"
                )

    def cipher(self, session_id: str, owner: str) -> "Cipher":
        """What encrypts and decrypts a session."""
        return Cipher(self, session_id, owner)


class UnknownKey(Exception):
    """What is to be decrypted is encrypted by a key that is not there."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no key {key_id}")
        self.key_id = key_id


class Sealing:
    """Encrypts and decrypts by keys that are made of a deployment's for one thing alone, which `info` names."""

    def __init__(self, keys: Keys, info: bytes) -> None:
        self._keys = keys
        self._info = info
        self._by_id: dict[str, AESGCM] = {}

    def seal(self, key_id: str, about: bytes, payload: bytes) -> bytes:
        """A payload encrypted; about: what it is bound to."""
        head, nonce = _MARK + sized(key_id.encode(), 1), os.urandom(_NONCE_BYTES)
        return head + nonce + self._aead(key_id).encrypt(nonce, payload, _DOMAIN + head + about)

    def open(self, about: bytes, stored: bytes) -> bytes:
        """The payload of what was encrypted.

        Raises:
            UnknownKey: its key is not there.
            NotGenuine: it was changed, or is not bound to this.
        """
        from cryptography.exceptions import InvalidTag

        key_id = key_of(stored)
        if key_id is None:
            raise NotGenuine("is not an encrypted record")
        if key_id not in self._keys:
            raise UnknownKey(key_id)
        size = len(_MARK) + 1 + stored[1]
        head, nonce, rest = stored[:size], stored[size : size + _NONCE_BYTES], stored[size + _NONCE_BYTES :]
        try:
            return self._aead(key_id).decrypt(nonce, rest, _DOMAIN + head + about)
        except InvalidTag:
            raise NotGenuine("cannot be decrypted: it was changed, or is from elsewhere") from None

    def _aead(self, key_id: str) -> "AESGCM":
        if (aead := self._by_id.get(key_id)) is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            aead = self._by_id[key_id] = AESGCM(self._keys.subkey(key_id, self._info))
        return aead


class Cipher:
    """Encrypts and decrypts the records of one session. Where there is no key to encrypt by, both leave them alone."""

    def __init__(self, keys: Keys, session_id: str, owner: str) -> None:
        self._keys = keys
        self._session_id = session_id
        self._about = b"".join(sized(text.encode()) for text in (session_id, owner))
        self._sealing = Sealing(keys, b"session " + session_id.encode())
        self.takes_clear = True
        """Whether a record in clear may be one of the session's."""

    @property
    def encrypts(self) -> bool:
        """Whether what is written is encrypted."""
        return self._keys.first is not None

    def is_current(self, stored: bytes) -> bool:
        """Whether a record is kept as it would be written now."""
        return key_of(stored) == self._keys.first if is_encrypted(stored) else not self.encrypts

    def encrypt(self, kind: int, place: int, payload: bytes) -> bytes:
        """A record's payload as it is kept. place: its number; 0 of a kind that a session has one of."""
        if (key_id := self._keys.first) is None:
            return payload
        return self._sealing.seal(key_id, self._bound_to(kind, place), payload)

    def decrypt(self, kind: int, place: int, stored: bytes) -> bytes:
        """The payload of a record that is kept.

        Raises:
            KeyMissing: there is no key of that id.
            NotGenuine: it was changed, or is not the session's record of this kind and place.
        """
        if not is_encrypted(stored):
            if not self.takes_clear:
                raise NotGenuine("is in clear, in an encrypted session: it is none of the gateway's")
            return stored
        try:
            return self._sealing.open(self._bound_to(kind, place), stored)
        except UnknownKey as error:
            raise self._missing(error.key_id) from None

    def _missing(self, key_id: str) -> KeyMissing:
        told = f"session {self._session_id} is encrypted by the key {key_id}, and "
        told += f"{SETTING} lacks it: put it back" if self._keys else f"{SETTING} is not set"
        return KeyMissing(told, "session", self._session_id)

    def _bound_to(self, kind: int, place: int) -> bytes:
        return self._about + kind.to_bytes(1, "big") + place.to_bytes(8, "big")


def sized(data: bytes, size: int = 4) -> bytes:
    """Data behind its length."""
    return len(data).to_bytes(size, "big") + data


def key_of(stored: bytes) -> str | None:
    """The id of the key of an encrypted record; None where it is none."""
    size = stored[1] if len(stored) > 1 else 0
    found = stored[2 : 2 + size]
    whole = size and found.isascii() and len(stored) >= 2 + size + _NONCE_BYTES + _TAG_BYTES
    return found.decode() if whole else None


def _names(ids: Mapping[str, bytes]) -> str:
    return ", ".join(sorted(ids))
