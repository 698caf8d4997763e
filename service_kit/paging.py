"""Page sizes and page tokens: where the next page begins, in a form that clients cannot read, bend or use elsewhere.

Tokens are encrypted by AES-SIV (RFC 5297), which needs no nonce: one position has one token, whichever replica gives
it. The key is in a file beside the data that the tokens lead through: they outlive a restart, and replicas that share
the data share it.
"""

import base64
import binascii
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from recording.log import get_logger

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

log = get_logger(__name__)

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
MAX_PAGE_BYTES = 3 * 2**20
"""A page ends early beyond this size: by default, gRPC clients accept messages of 4 MiB."""

Row = TypeVar("Row", bound=Any)

_VERSION = b"\x01"
KEY_BYTES = 64
_INT64 = range(-(2**63), 2**63)

Position = tuple[int | str, ...]

_key = os.urandom(KEY_BYTES)
"""Where keep_key() is not called, tokens are good for the life of the process."""


def keep_key(path: Path) -> None:
    """Makes and reads tokens with the key in the file at path, which is made when it is not there.

    A key that cannot be kept is logged: tokens are then good for the life of the process.
    """
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        with suppress(FileExistsError):
            if not path.exists():
                descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_key)
                    file.flush()
                    os.fsync(file.fileno())
                path.hardlink_to(draft)  # whole, and of several processes the first one's
        key = path.read_bytes()
    except OSError as error:
        log.warning("paging.key_not_kept", path=str(path), reason=error.strerror)
        return
    finally:
        draft.unlink(missing_ok=True)
    if len(key) == KEY_BYTES:
        use_key(key)
    else:
        log.warning("paging.key_not_kept", path=str(path), reason=f"it has not {KEY_BYTES} bytes: remove it")


def use_key(key: bytes) -> None:
    """Makes and reads tokens with this key of KEY_BYTES."""
    global _key
    _key = key


class InvalidPage(ValueError):
    """A page size or a page token that this service cannot have meant; the message says what to send instead."""

    def __init__(self, message: str = "", field: str = "page_token") -> None:
        super().__init__(message)
        self.field = field


def page_size(requested: int) -> int:
    """The number of rows of a page: requested, 100 for 0, at most 1000.

    Raises:
        InvalidPage: requested is negative.
    """
    if requested < 0:
        raise InvalidPage("page_size must not be negative: send 1 to 1000, or 0 for 100", "page_size")
    return min(requested or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def encode_token(position: Position, filters: bytes) -> str:
    """The page token for what comes after position, usable with the same filters alone.

    filters: any bytes that differ where another method or other filters were asked for.
    """
    payload = json.dumps(position, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_cipher(_key).encrypt(payload, [_VERSION, filters])).decode().rstrip("=")


def decode_token(
    token: str, filters: bytes, shape: tuple[type[int] | type[str], ...], field: str = "page_token"
) -> Position:
    """The position that encode_token was given; its elements have the types of shape. field: where the token came.

    Raises:
        InvalidPage: the token was not made by encode_token with the same filters.
    """
    from cryptography.exceptions import InvalidTag  # as in _cipher

    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        position = json.loads(_cipher(_key).decrypt(raw, [_VERSION, filters]))
        json.dumps(position, ensure_ascii=False).encode()  # which half a surrogate pair cannot be
    # A token of somebody who has the key is still read with care.
    except (InvalidTag, binascii.Error, ValueError, RecursionError):
        raise InvalidPage(f"{field} is not one that this service gave for these filters", field) from None
    fits = isinstance(position, list) and tuple(map(type, position)) == shape
    if not fits or any(isinstance(part, int) and part not in _INT64 for part in position):
        raise InvalidPage(f"{field} is not one that this service gave for these filters", field)
    return tuple(position)


@lru_cache(maxsize=2)
def _cipher(key: bytes) -> "AESSIV":
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV  # it takes long to load

    return AESSIV(key)


def in_parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Splits rows into chunks that each fit into a message."""
    part: list[Row] = []
    size_bytes = 0
    for row in rows:
        size_bytes += row.ByteSize()
        if part and size_bytes > MAX_PAGE_BYTES:
            yield part
            part, size_bytes = [], row.ByteSize()
        part.append(row)
    if part:
        yield part
