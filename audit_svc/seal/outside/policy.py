"""The witnesses that the ledger's operator names, in a file of https://c2sp.org/tlog-policy."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from recording.channel.watched import Watched, WrongFile
from recording.transparency.cosignature import Witness
from recording.transparency.errors import BadKey

MAX_WITNESSES = 1000
_OTHER_LINES = frozenset({"log", "group", "quorum"})


class NamedWitness(NamedTuple):
    """A line of the file."""

    name: str
    """In the file alone."""
    key: Witness
    url: str
    """Its submission prefix (https://c2sp.org/tlog-witness); empty for one that comes by itself."""


class BadLine(BadKey):
    """A line cannot be read."""


def read_policy(text: str) -> tuple[NamedWitness, ...]:
    """The witnesses of a policy; what it says of logs, groups and the quorum is for who verifies. Raises BadLine."""
    found: list[NamedWitness] = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#") or words[0] in _OTHER_LINES:
            continue
        try:
            if words[0] != "witness" or not 3 <= len(words) <= 4:
                raise BadKey("say `witness NAME KEY` or `witness NAME KEY URL`, as https://c2sp.org/tlog-policy has it")
            found.append(_read(words))
            if any(found[-1].name == each.name or found[-1].key.public == each.key.public for each in found[:-1]):
                raise BadKey("the name or the key is that of an earlier witness")
        except BadKey as error:
            raise BadLine(f"line {number}: {error}") from None
    if len(found) > MAX_WITNESSES:
        raise BadLine(f"it names {len(found)} witnesses, and {MAX_WITNESSES} are the most")
    return tuple(found)


def load_policy(path: Path, contents: Sequence[bytes]) -> tuple[NamedWitness, ...]:
    """The witnesses in the one file at path. Raises WrongFile."""
    try:
        return read_policy(contents[0].decode())
    except (BadLine, UnicodeDecodeError) as error:
        raise WrongFile(path, str(error) if isinstance(error, BadLine) else "is not UTF-8") from None


def check_policy(path: Path, content: bytes) -> None:
    """Refuses a file that a service cannot start with. Raises WrongFile: as load_policy(), or it names nobody."""
    if not load_policy(path, [content]):
        raise WrongFile(path, "names no witness: add a line `witness NAME KEY` or `witness NAME KEY URL`")


def watch_policy(path: Path | None) -> Callable[[], tuple[NamedWitness, ...]]:
    """The witnesses of the file as it is at each call; none without a file. Raises WrongFile: it cannot be used."""
    return Watched([path], partial(load_policy, path), lines=True).current if path else tuple


def _read(words: Sequence[str]) -> NamedWitness:
    url = words[3] if len(words) == 4 else ""
    if url and not url.startswith(("https://", "http://")):
        raise BadKey("the URL of a witness begins with https:// or http://")
    return NamedWitness(words[1], Witness.parse(words[2]), url.rstrip("/"))
