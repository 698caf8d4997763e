"""Ids for hands: how a list shows them, and what stands for a whole one where it is typed.

A UUIDv7 (RFC 9562, 5.7) begins with the time, which ids of one list share, and ends with 62 random bits. So its last
characters are its short form, where git takes the first ones.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated

from service_kit.terminal.command import Argument, BadParameter

LAST = "@last"
OR_LAST = f"give an id, or {LAST}"
"""What to do about an empty one."""
SessionId = Annotated[
    str, Argument(help=f"The session: its id, the first or last characters of it, or {LAST}.", empty=OR_LAST)
]
LEAST = 4
"""The characters that a part of an id has to have."""
SHORT = 8
SHOWN = 10
"""So many are told where a part fits several."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def short_ids(ids: Collection[str]) -> dict[str, str]:
    """How a list shows its ids: a UUID's last 8 characters, or as many more as tell it from the others. Other ids are
    shown whole.
    """
    length, uuids = SHORT, {text for text in ids if _UUID.fullmatch(text)}
    while len({text[-length:] for text in uuids}) < len(uuids):
        length += 1
    return {text: text[-length:] if text in uuids else text for text in ids}


def is_whole(text: str) -> bool:
    """Whether it can be nothing but a whole id, which needs not be looked for."""
    return not text or _UUID.fullmatch(text) is not None


def too_short(text: str) -> str:
    """The end of a sentence on an id that nothing has: that text has too few characters for a part of one, if so."""
    return f"; a part of an id needs at least {LEAST} characters" if 0 < len(text) < LEAST else ""


def fitting(text: str, ids: Iterable[str]) -> list[str]:
    """Those of ids that begin or end with text, each once and in their order; UUIDs also in capitals (RFC 9562, 4)."""
    small = text.lower()
    return [
        each
        for each in dict.fromkeys(ids)
        if each.startswith(text)
        or each.endswith(text)
        or (_UUID.fullmatch(each) and (each.startswith(small) or each.endswith(small)))
    ]


def whole_id(text: str, newest_first: Sequence[str], hint: str) -> str:
    """The id that text stands for: @last for the newest, an id itself, or the first or the last characters of one.

    What fits none is returned as it is: the service knows more ids than those at hand.

    Raises:
        BadParameter: there is none yet, text fits several, or it is another word with @; hint names the parameter.
    """
    if text == LAST:
        if not newest_first:
            raise BadParameter(f"there is none yet for {LAST} to name", hint)
        return newest_first[0]
    if text in newest_first or len(text) < LEAST:
        return text
    found = fitting(text, newest_first)
    if len(found) > 1:
        told = ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
        raise BadParameter(f"{text!r} fits {len(found)}: {told}", hint)
    if not found and text.startswith(LAST[0]):
        raise BadParameter(f"{text!r} fits none: is {LAST} meant?", hint)
    return found[0] if found else text
