"""SHA-256 that a forked child can compute, whatever its parent's other threads did at that moment.

`hashlib.sha256` and `hmac` are OpenSSL's, which takes a lock when a thread first uses it. A fork beside such a thread
leaves the lock held in the child, which then waits for ever (5 of 4,000 forks in `tests/recording/test_sha256.py`'s
loop). Python's own implementation, the one of `hashlib` without OpenSSL, takes none.
"""

from importlib import import_module
from typing import Any

_BLOCK_BYTES = 64
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


def _own_sha256() -> Any:
    for module in "_sha2", "_sha256", "hashlib":  # from 3.12 on, before it, and where Python is built without its own
        try:
            return import_module(module).sha256
        except ImportError:
            continue
    raise ImportError("this Python has no SHA-256")


sha256 = _own_sha256()
"""The constructor, as `hashlib.sha256`."""


class Hmac:
    """HMAC-SHA-256 (RFC 2104) under one key."""

    def __init__(self, key: bytes) -> None:
        """key: of at most 64 bytes.

        Raises:
            ValueError: the key is longer.
        """
        if len(key) > _BLOCK_BYTES:
            raise ValueError(f"a key of {len(key)} bytes where {_BLOCK_BYTES} are the most")
        block = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = sha256(block.translate(_INNER))
        self._outer = sha256(block.translate(_OUTER))

    def digest(self, data: bytes) -> bytes:
        """The code of data, 32 bytes."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(data)
        outer.update(inner.digest())
        code: bytes = outer.digest()
        return code
