"""Control characters: what no name has, be it asked for, recorded or shown in a certificate.

A NUL ends a text early for SQLite and for C, and a line break or an escape lets one name pass for another.
"""

import re

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
"""General category Cc of Unicode."""
_ASCII_CONTROLS = bytes(range(0x20)) + b"\x7f"


def has_control(name: str) -> bool:
    """Whether a name has a control character."""
    if name.isascii():  # half the time of isprintable(), which the ledger would spend on every name of every row
        return len(name.encode().translate(None, _ASCII_CONTROLS)) != len(name)
    return not name.isprintable() and _CONTROL.search(name) is not None


def escape_controls(name: str) -> str:
    r"""The name with \xNN for each control character."""
    if name.isprintable():
        return name
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", name)
