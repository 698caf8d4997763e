"""Files of keys that services share: a key a line, its id and 64 hexadecimal digits. The first is the one in use.

    2026-11 6f1c…            whatever is new is made with it
    2026-05 03ab…            what was made with it can still be read

Empty lines and lines that begin with # (comments) are ignored.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from recording.channel.watched import WrongFile, read_file, warn_of_readers

KEY_BYTES = 32
MAX_ID = 64

_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_ID - 1}}}")
_DIGITS = re.compile(rf"[0-9A-Fa-f]{{{2 * KEY_BYTES}}}")
_WAY = 'such as `echo "$(date +%FT%H%M%S) $(openssl rand -hex 32)"` makes'


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a file."""

    id: str
    key: bytes = field(repr=False)


def read_keys(path: Path) -> list[Key]:
    """The keys of a file; a warning is logged where every user of the machine may read it.

    Raises:
        WrongFile: it cannot be read, or is none of keys.
    """
    keys = parse_keys(path, read_file(path))
    warn_of_readers(path)
    return keys


def parse_keys(path: Path, content: bytes) -> list[Key]:
    """The keys in the content of the file at path, at least one. No message shows a key.

    Raises:
        WrongFile: a line is no key, or two have the same id or the same key.
    """
    keys = list[Key]()
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = line.split()
        if len(words) != 2 or not _ID.fullmatch(words[0]):
            raise WrongFile(path, f"line {number} must be an id and a key, {_WAY}")
        if not _DIGITS.fullmatch(words[1]):
            raise WrongFile(path, f"line {number}: a key has 64 hexadecimal digits (256 bits), {_WAY}")
        keys.append(Key(words[0], bytes.fromhex(words[1])))
    if not keys:
        raise WrongFile(path, f"holds no key: write a line, {_WAY}")
    for what, values in (("id", [key.id for key in keys]), ("key", [key.key for key in keys])):
        if len(set(values)) < len(values):
            raise WrongFile(path, f"two lines have the same {what}: each key has an id of its own")
    return keys
