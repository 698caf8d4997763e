"""Page sizes and page tokens: where the next page begins, in a form that clients cannot read, bend or use elsewhere."""

import base64
import binascii
import hashlib
import json

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000

_VERSION = b"\x01"
_CHECKSUM_BYTES = 8
_INT64 = range(-(2**63), 2**63)

Position = tuple[int | str, ...]


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
    payload = _VERSION + json.dumps(position, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_checksum(payload, filters) + payload).decode().rstrip("=")


def decode_token(
    token: str, filters: bytes, shape: tuple[type[int] | type[str], ...], field: str = "page_token"
) -> Position:
    """The position that encode_token was given; its elements have the types of shape. field: where the token came.

    Raises:
        InvalidPage: the token was not made by encode_token with the same filters.
    """
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        checksum, payload = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
        if checksum != _checksum(payload, filters) or payload[:1] != _VERSION:
            raise InvalidPage
        position = json.loads(payload[1:])
        json.dumps(position, ensure_ascii=False).encode()  # which half a surrogate pair cannot be
    # A token whose checksum somebody worked out is still read with care.
    except (InvalidPage, binascii.Error, ValueError, RecursionError):
        raise InvalidPage(f"{field} is not one that this service gave for these filters", field) from None
    fits = isinstance(position, list) and tuple(map(type, position)) == shape
    if not fits or any(isinstance(part, int) and part not in _INT64 for part in position):
        raise InvalidPage(f"{field} is not one that this service gave for these filters", field)
    return tuple(position)


def _checksum(payload: bytes, filters: bytes) -> bytes:
    return hashlib.blake2b(hashlib.blake2b(filters).digest() + payload, digest_size=_CHECKSUM_BYTES).digest()
